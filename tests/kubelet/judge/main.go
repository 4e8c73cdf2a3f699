// judge answers, in the words of the Kubernetes version that it is linked with, what an API server and a kubelet make of
// a pod. It reads one request a line as JSON and writes one answer a line, in no particular order.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"

	v1 "k8s.io/api/core/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	api "k8s.io/kubernetes/pkg/apis/core"
	corev1 "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/capabilities"
	registry "k8s.io/kubernetes/pkg/registry/core/pod"
)

// request has one of Pod, Manifest, Directory and Gates.
type request struct {
	ID int64 `json:"id"`
	// Pod is an object as somebody would create it.
	Pod json.RawMessage `json:"pod,omitempty"`
	// Manifest is the text of a file in the directory of static pods.
	Manifest *string `json:"manifest,omitempty"`
	// Directory of static pods, for the kubelet's own file source.
	Directory string `json:"directory,omitempty"`
	// Gates asks for the feature gates.
	Gates bool `json:"gates,omitempty"`
	// Node is this node's name.
	Node string `json:"node"`
	// World is what the environment of the pod's containers comes from.
	World *world `json:"world,omitempty"`
}

type answer struct {
	ID int64 `json:"id"`
	// Error says why the pod or manifest is refused.
	Error string `json:"error,omitempty"`
	// Pod is what the API server stores, or what the kubelet runs.
	Pod *v1.Pod `json:"pod,omitempty"`
	// Meaning of the pod at each of the world's addresses.
	Meaning []meaning `json:"meaning,omitempty"`
	// Gates says which features are on by default.
	Gates map[string]bool `json:"gates,omitempty"`
	// Pods and Refused are what a file source says of a directory: the pods by UID, the errors by path.
	Pods    map[types.UID]*v1.Pod `json:"pods,omitempty"`
	Refused map[string]string     `json:"refused,omitempty"`
}

func main() {
	klog.InitFlags(nil)
	_ = flag.Set("logtostderr", "false")
	klog.SetOutput(io.Discard)
	// as a kubelet does, and an API server that is told so: every cluster with a network plugin
	capabilities.Initialize(capabilities.Capabilities{AllowPrivileged: true})
	requests := make(chan []byte)
	out := bufio.NewWriter(os.Stdout)
	var lock sync.Mutex
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for line := range requests {
				text, err := json.Marshal(reply(line))
				if err != nil {
					fatal(err)
				}
				lock.Lock()
				_, _ = out.Write(append(text, '\n'))
				if err := out.Flush(); err != nil {
					fatal(err)
				}
				lock.Unlock()
			}
		})
	}
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 1 {
			requests <- line
		}
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			fatal(err)
		}
	}
	close(requests)
	workers.Wait()
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "judge:", err)
	os.Exit(1)
}

func reply(line []byte) (to answer) {
	var asked request
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&asked); err != nil {
		fatal(fmt.Errorf("request: %w", err))
	}
	to.ID = asked.ID
	var pod *v1.Pod
	var err error
	switch {
	case asked.Gates:
		to.Gates = map[string]bool{}
		for name, spec := range utilfeature.DefaultMutableFeatureGate.GetAll() {
			to.Gates[string(name)] = spec.Default
		}
		return to
	case asked.Directory != "":
		to.Pods, to.Refused = listed(asked.Directory, asked.Node)
		return to
	case asked.Manifest != nil:
		pod, err = decoded([]byte(*asked.Manifest), asked.Node)
	default:
		pod, err = stored(asked.Pod, asked.Node)
	}
	if err != nil {
		to.Error = err.Error()
		return to
	}
	to.Pod = pod
	if asked.World != nil {
		for at := range asked.World.Addresses {
			to.Meaning = append(to.Meaning, asked.World.meaning(pod, at))
		}
	}
	return to
}

// stored is what an API server of this version keeps of a pod that is created, after a scheduler has bound it
// (staging/src/k8s.io/apiserver/pkg/registry/rest/create.go, BeforeCreate, without what admission plugins do).
func stored(text []byte, node string) (*v1.Pod, error) {
	object, err := apiruntime.Decode(legacyscheme.Codecs.UniversalDecoder(), text)
	if err != nil {
		return nil, err
	}
	pod, isPod := object.(*api.Pod)
	if !isPod {
		return nil, fmt.Errorf("not a pod: %T", object)
	}
	ctx := context.Background()
	registry.Strategy.PrepareForCreate(ctx, pod)
	if errs := registry.Strategy.Validate(ctx, pod); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	registry.Strategy.Canonicalize(pod)
	if len(pod.Spec.SchedulingGates) == 0 {
		pod.Spec.NodeName = node
	}
	out := &v1.Pod{}
	if err := corev1.Convert_core_Pod_To_v1_Pod(pod, out, nil); err != nil {
		return nil, err
	}
	out.Kind, out.APIVersion = "Pod", "v1"
	return out, nil
}
