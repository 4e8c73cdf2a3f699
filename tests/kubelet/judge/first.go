//go:build logger && !mode

package main

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/config"
	kubetypes "k8s.io/kubernetes/pkg/kubelet/types"
)

func firstUpdate(ctx context.Context, logger klog.Logger, directory string, node types.NodeName, source string) kubetypes.PodUpdate {
	pods := config.NewPodConfig(&record.FakeRecorder{}, startupObserver{})
	config.NewSourceFile(logger, directory, node, time.Hour, pods.Channel(ctx, source))
	return <-pods.Updates()
}
