package main

import (
	"context"
	"encoding/json"
	"sync"
	"time"
	_ "unsafe" // for linkname

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	kubetypes "k8s.io/kubernetes/pkg/kubelet/types"
)

// startupObserver ignores what the kubelet would have measured.
type startupObserver struct{}

func (startupObserver) ObservedPodOnWatch(*v1.Pod, time.Time) {}

var quiet = logr.Discard()

var listing sync.Mutex

// listed is what the kubelet's own file source makes of a directory. It is slow and never ends, so it is asked for a few
// directories only; decoded is the function beneath it.
func listed(directory, node string) (map[types.UID]*v1.Pod, map[string]string) {
	listing.Lock()
	defer listing.Unlock()
	refused := map[string]string{}
	sink := funcr.NewJSON(func(line string) {
		var entry struct{ Msg, Path, Error string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Path != "" && entry.Error != "" {
			refused[entry.Path] = entry.Error
		}
	}, funcr.Options{})
	klog.SetLogger(sink) // until 1.34 the source writes to the process's log
	defer klog.SetLogger(quiet)
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), sink))
	defer cancel()
	pods := map[types.UID]*v1.Pod{}
	update := firstUpdate(ctx, sink, directory, types.NodeName(node), kubetypes.FileSource) // the whole directory
	for _, pod := range update.Pods {
		pods[pod.UID] = pod
	}
	return pods, refused
}
