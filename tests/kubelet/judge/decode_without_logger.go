//go:build !logger

package main

import (
	_ "unsafe" // for linkname

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	api "k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/kubelet/config"
)

//go:linkname tryDecodeSinglePod k8s.io/kubernetes/pkg/kubelet/config.tryDecodeSinglePod
func tryDecodeSinglePod([]byte, func(*api.Pod) error) (bool, *v1.Pod, error)

//go:linkname applyDefaults k8s.io/kubernetes/pkg/kubelet/config.applyDefaults
func applyDefaults(pod *api.Pod, source string, isFile bool, node types.NodeName) error

// decoded is what the kubelet's file source does with the content of a file (pkg/kubelet/config/file.go, extractFromFile).
func decoded(text []byte, node string) (*v1.Pod, error) {
	_, pod, err := tryDecodeSinglePod(text, func(pod *api.Pod) error {
		return applyDefaults(pod, "", true, types.NodeName(node))
	})
	return pod, err
}
