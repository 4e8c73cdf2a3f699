package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// observe asks the container runtime, or the kubelet's pod-resources socket, from outside of what is tested:
//
//	kube observe SOCKET owned                the pods that this kubelet manages
//	kube observe SOCKET sandboxes|containers one a line, fields separated by blanks
//	kube observe SOCKET status CONTAINER     verbose status as JSON
//	kube observe SOCKET address NAMESPACE/POD         of its ready sandbox; nothing on the host's network
//	kube observe SOCKET pid NAMESPACE/POD CONTAINER   of its running process
//	kube observe SOCKET stop CONTAINER       with 5 s of grace
//	kube observe SOCKET stop-sandbox POD     every sandbox of that pod name
func observe(socket string, command ...string) error {
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	cri := runtime.NewRuntimeServiceClient(connection)
	argument := ""
	if len(command) > 1 {
		argument = command[1]
	}
	switch command[0] {
	case "owned":
		answer, err := podresources.NewPodResourcesListerClient(connection).List(ctx, &podresources.ListPodResourcesRequest{})
		if err != nil {
			return err
		}
		for _, p := range answer.PodResources {
			fmt.Println(p.Namespace + "/" + p.Name)
		}
	case "sandboxes":
		answer, err := cri.ListPodSandbox(ctx, &runtime.ListPodSandboxRequest{})
		if err != nil {
			return err
		}
		for _, s := range answer.Items {
			fmt.Println(s.Id, s.State, s.Metadata.Namespace+"/"+s.Metadata.Name, s.Metadata.Uid, s.Metadata.Attempt, s.Annotations["kubernetes.io/config.source"])
		}
	case "containers":
		answer, err := cri.ListContainers(ctx, &runtime.ListContainersRequest{})
		if err != nil {
			return err
		}
		for _, c := range answer.Containers {
			fmt.Println(c.Id, c.State, c.Labels["io.kubernetes.pod.namespace"]+"/"+c.Labels["io.kubernetes.pod.name"], c.Labels["io.kubernetes.pod.uid"], c.Metadata.Name, c.Metadata.Attempt)
		}
	case "status":
		answer, err := cri.ContainerStatus(ctx, &runtime.ContainerStatusRequest{ContainerId: argument, Verbose: true})
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(answer)
	case "address":
		answer, err := cri.ListPodSandbox(ctx, &runtime.ListPodSandboxRequest{Filter: &runtime.PodSandboxFilter{
			State: &runtime.PodSandboxStateValue{State: runtime.PodSandboxState_SANDBOX_READY}}})
		if err != nil {
			return err
		}
		for _, s := range answer.Items {
			if s.Metadata.Namespace+"/"+s.Metadata.Name == argument {
				status, err := cri.PodSandboxStatus(ctx, &runtime.PodSandboxStatusRequest{PodSandboxId: s.Id})
				if err != nil {
					return err
				}
				fmt.Println(status.Status.GetNetwork().GetIp())
				return nil
			}
		}
		return fmt.Errorf("observe: %s has no ready sandbox", argument)
	case "pid":
		if len(command) != 3 {
			return fmt.Errorf("observe: pid wants NAMESPACE/POD and CONTAINER")
		}
		answer, err := cri.ListContainers(ctx, &runtime.ListContainersRequest{Filter: &runtime.ContainerFilter{
			State: &runtime.ContainerStateValue{State: runtime.ContainerState_CONTAINER_RUNNING}}})
		if err != nil {
			return err
		}
		for _, c := range answer.Containers {
			if c.Labels["io.kubernetes.pod.namespace"]+"/"+c.Labels["io.kubernetes.pod.name"] != argument || c.Metadata.Name != command[2] {
				continue
			}
			status, err := cri.ContainerStatus(ctx, &runtime.ContainerStatusRequest{ContainerId: c.Id, Verbose: true})
			if err != nil {
				return err
			}
			var info struct{ Pid int }
			if err := json.Unmarshal([]byte(status.Info["info"]), &info); err != nil {
				return err
			}
			fmt.Println(info.Pid)
			return nil
		}
		return fmt.Errorf("observe: %s runs no container %s", argument, command[2])
	case "stop":
		_, err := cri.StopContainer(ctx, &runtime.StopContainerRequest{ContainerId: argument, Timeout: 5})
		return err
	case "stop-sandbox":
		answer, err := cri.ListPodSandbox(ctx, &runtime.ListPodSandboxRequest{})
		if err != nil {
			return err
		}
		for _, s := range answer.Items {
			if s.Metadata.Name == argument {
				if _, err := cri.StopPodSandbox(ctx, &runtime.StopPodSandboxRequest{PodSandboxId: s.Id}); err != nil {
					return err
				}
			}
		}
	default:
		return fmt.Errorf("observe: unknown command %q", command[0])
	}
	return nil
}
