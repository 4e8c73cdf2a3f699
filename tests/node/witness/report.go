package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"
)

// Report is what a process can see of its world. Every value is a plain string, so that two reports
// compare line by line.
type Report struct {
	Addresses   []string // of this pod; every other value has them replaced before it is compared
	Arguments   []string
	Directory   string
	Hostname    string
	Identity    string
	Environment []string          // sorted: the kubelet keeps it in a Go map, so every start has another order
	Files       map[string]string // path: mode, owner and content, or link target
	Mounts      []string
	Devices     []string
	Status      []string // capabilities, seccomp, groups
	Limits      []string
	Cgroup      map[string]string
	OOMScore    string
}

func see(paths []string) Report {
	r := Report{
		Arguments: os.Args,
		Identity:  fmt.Sprintf("uid %d gid %d umask %04o", os.Getuid(), os.Getgid(), umask()),
		Files:     map[string]string{},
		Cgroup:    map[string]string{},
		Limits:    lines("/proc/self/limits", ""),
		OOMScore:  strings.Join(lines("/proc/self/oom_score_adj", ""), ""),
	}
	r.Directory, _ = os.Getwd()
	r.Hostname, _ = os.Hostname()
	if addresses, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addresses {
			if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
				r.Addresses = append(r.Addresses, ip.IP.String())
			}
		}
	}
	r.Environment = os.Environ()
	slices.Sort(r.Environment)
	for _, path := range append(paths, "/etc/resolv.conf", "/etc/hosts", "/etc/hostname") {
		if path != "" {
			r.look(path)
		}
	}
	for _, line := range lines("/proc/self/mountinfo", "") {
		// "36 35 98:0 /root /mount/point rw,relatime shared:1 - ext4 /dev/root rw": where and whether writable;
		// what backs it differs by intent (a Secret's own tmpfs, a directory on a shared one)
		if f := strings.Fields(line); len(f) > 6 {
			r.Mounts = append(r.Mounts, f[4]+" "+strings.SplitN(f[5], ",", 2)[0])
		}
	}
	slices.Sort(r.Mounts)
	for _, prefix := range []string{"Groups:", "Cap", "NoNewPrivs:", "Seccomp"} {
		r.Status = append(r.Status, lines("/proc/self/status", prefix)...)
	}
	if entries, err := os.ReadDir("/dev"); err == nil {
		for _, e := range entries {
			r.Devices = append(r.Devices, e.Name()+" "+e.Type().String())
		}
	}
	for _, name := range []string{"memory/memory.limit_in_bytes", "cpu/cpu.shares", "cpu/cpu.cfs_quota_us", "pids/pids.max",
		"memory.max", "memory.min", "cpu.max", "cpu.weight", "pids.max"} {
		if value := lines("/sys/fs/cgroup/"+name, ""); value != nil {
			r.Cgroup[name] = strings.Join(value, " ")
		}
	}
	return r
}

// look adds path and all below it: type, mode, owner, and the link's target or the file's bytes.
func (r *Report) look(path string) {
	_ = filepath.WalkDir(path, func(path string, _ fs.DirEntry, err error) error {
		info, statErr := os.Lstat(path)
		if err != nil || statErr != nil {
			r.Files[path] = fmt.Sprint(err, statErr)
			return nil
		}
		owner := info.Sys().(*syscall.Stat_t)
		seen := fmt.Sprintf("%s %d:%d", info.Mode(), owner.Uid, owner.Gid)
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(path)
			seen += " -> " + target
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			switch {
			case err != nil:
				seen += " " + err.Error()
			case path == "/etc/resolv.conf":
				seen += " " + resolverInOrder(string(data))
			case utf8.Valid(data):
				seen += " " + string(data)
			default:
				seen += " base64 " + base64.StdEncoding.EncodeToString(data)
			}
		}
		r.Files[path] = seen
		return nil
	})
}

// resolverInOrder sorts the options, which the kubelet writes in the random order of a Go map.
func resolverInOrder(text string) string {
	all := strings.Split(text, "\n")
	for i, line := range all {
		if options, ok := strings.CutPrefix(line, "options "); ok {
			f := strings.Fields(options)
			slices.Sort(f)
			all[i] = "options " + strings.Join(f, " ")
		}
	}
	return strings.Join(all, "\n")
}

func umask() int {
	old := syscall.Umask(0)
	syscall.Umask(old)
	return old
}

func lines(path, prefix string) (found []string) {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		if strings.HasPrefix(scanner.Text(), prefix) {
			found = append(found, scanner.Text())
		}
	}
	return found
}

// compare prints every value in which two reports differ. Nothing is left out but the pod's own address,
// which is new by nature: it is replaced by a word wherever it stands.
func compare(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("compare wants two reports")
	}
	var sides [2]map[string]string
	for i, path := range args {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var r Report
		if err := json.Unmarshal(data, &r); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		sides[i] = r.flat()
	}
	keys := map[string]bool{}
	for _, side := range sides {
		for key := range side {
			keys[key] = true
		}
	}
	differ := 0
	for _, key := range slices.Sorted(mapKeys(keys)) {
		if a, b := sides[0][key], sides[1][key]; a != b {
			differ++
			fmt.Printf("%s\n  parent: %.200q\n  twin:   %.200q\n", key, a, b)
		}
	}
	if differ > 0 {
		fmt.Println(differ, "differences")
		os.Exit(3)
	}
	fmt.Println("equal in", len(keys), "values")
	return nil
}

// flat names every value of the report, with the pod's own addresses replaced.
func (r Report) flat() map[string]string {
	own := []string{}
	for _, a := range r.Addresses {
		own = append(own, a, "(pod address)")
	}
	replace := strings.NewReplacer(own...)
	out := map[string]string{}
	value := reflect.ValueOf(r)
	for i := range value.NumField() {
		name := value.Type().Field(i).Name
		if name == "Addresses" {
			continue
		}
		switch field := value.Field(i).Interface().(type) {
		case string:
			out[name] = replace.Replace(field)
		case []string:
			for i, v := range field {
				out[fmt.Sprintf("%s %02d", name, i)] = replace.Replace(v)
			}
		case map[string]string:
			for k, v := range field {
				out[name+" "+k] = replace.Replace(v)
			}
		}
	}
	return out
}
