package main

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/probe"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// world is what lies outside of a pod and gets into the environment of its containers.
type world struct {
	// Services are the service variables of its namespace.
	Services map[string]string `json:"services,omitempty"`
	// EnvFrom is what envFrom brings to each container.
	EnvFrom map[string]map[string]string `json:"envFrom,omitempty"`
	// Values of the entries of env with a valueFrom, by container and position; absent: an optional one that is not there.
	Values map[string]map[int]string `json:"values,omitempty"`
	// Addresses that the pod may have: status.podIP and status.podIPs.
	Addresses [][2]string `json:"addresses"`
}

// meaning is what a kubelet does with the words of a pod that it expands or looks up.
type meaning struct {
	Containers map[string]process `json:"containers"`
}

type process struct {
	Env     map[string]string   `json:"env"`
	Command []string            `json:"command,omitempty"`
	Args    []string            `json:"args,omitempty"`
	Probes  map[string][]string `json:"probes,omitempty"`
	Ports   map[string]string   `json:"ports,omitempty"`
}

func (w *world) meaning(pod *v1.Pod, at int) meaning {
	found := meaning{Containers: map[string]process{}}
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			found.Containers[list[i].Name] = w.process(pod, &list[i], at)
		}
	}
	return found
}

func (w *world) process(pod *v1.Pod, container *v1.Container, at int) process {
	services := w.Services
	if pod.Spec.EnableServiceLinks == nil || !*pod.Spec.EnableServiceLinks {
		services = nil
	}
	env := w.environment(container, services, at)
	list := make([]kubecontainer.EnvVar, 0, len(env))
	for name, value := range env {
		list = append(list, kubecontainer.EnvVar{Name: name, Value: value})
	}
	of := process{Env: env, Probes: map[string][]string{}, Ports: map[string]string{}}
	of.Command, of.Args = kubecontainer.ExpandContainerCommandAndArgs(container, list)
	port := func(name string, port intstr.IntOrString) {
		number, err := probe.ResolveContainerPort(port, container)
		of.Ports[name] = fmt.Sprint(number, err)
	}
	for name, it := range map[string]*v1.Probe{
		"liveness": container.LivenessProbe, "readiness": container.ReadinessProbe, "startup": container.StartupProbe,
	} {
		switch {
		case it == nil:
		case it.Exec != nil:
			of.Probes[name] = kubecontainer.ExpandContainerCommandOnlyStatic(it.Exec.Command, container.Env)
		case it.HTTPGet != nil:
			port(name, it.HTTPGet.Port)
		case it.TCPSocket != nil:
			port(name, it.TCPSocket.Port)
		}
	}
	if hooks := container.Lifecycle; hooks != nil {
		for name, it := range map[string]*v1.LifecycleHandler{"postStart": hooks.PostStart, "preStop": hooks.PreStop} {
			switch {
			case it == nil:
			case it.HTTPGet != nil:
				port(name, it.HTTPGet.Port)
			case it.TCPSocket != nil:
				port(name, it.TCPSocket.Port)
			}
		}
	}
	return of
}

// environment follows pkg/kubelet/kubelet_pods.go, makeEnvironmentVariables, with the kubelet's own expansion.
func (w *world) environment(container *v1.Container, services map[string]string, at int) map[string]string {
	env := map[string]string{}
	for name, value := range w.EnvFrom[container.Name] {
		if len(container.EnvFrom) > 0 {
			env[name] = value
		}
	}
	mapping := expansion.MappingFuncFor(env, services)
	for i, entry := range container.Env {
		value := entry.Value
		switch from := entry.ValueFrom; {
		case value != "":
			value = expansion.Expand(value, mapping)
		case from == nil:
		case from.FieldRef != nil && from.FieldRef.FieldPath == "status.podIP":
			value = w.Addresses[at][0]
		case from.FieldRef != nil && from.FieldRef.FieldPath == "status.podIPs":
			value = w.Addresses[at][1]
		default:
			given, isThere := w.Values[container.Name][i]
			if !isThere {
				continue
			}
			value = given
		}
		env[entry.Name] = value
	}
	for name, value := range services {
		if _, isThere := env[name]; !isThere {
			env[name] = value
		}
	}
	return env
}
