package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"
	"unsafe"
)

// Report is what a process can see of its world. Every value is a plain string, so that two reports
// compare line by line.
type Report struct {
	Name        string
	Addresses   []string // of this pod; every other value has them replaced before it is compared
	Arguments   []string
	Directory   string
	Hostname    string
	FQDN        string
	Domain      string // NIS domain, a sysctl of the UTS namespace
	Identity    string
	UserMap     []string // of the user namespace
	Environment []string // sorted: the kubelet keeps it in a Go map, so every start has another order
	Streams     map[string]string
	Files       map[string]string // path: mode, owner, what this user may do with it, and content, or link target
	Mounts      map[string]string // path and one of options, propagation, backing
	Devices     []string
	Status      []string // capabilities, seccomp, groups
	Limits      []string
	Cgroup      map[string]string
	OOMScore    string
	Label       string            // of AppArmor or SELinux
	Sysctls     map[string]string // those that have a namespace
	Namespaces  map[string]string // as the kernel numbers them; collect says with whom they are shared
	Processes   []string          // of the others in this process namespace; only where asked for
	Requests    []string          // what probes and hooks sent, each once
}

// Looking is what see should look at.
type Looking struct {
	name      string
	paths     string
	skip      string
	processes bool
}

func (l *Looking) flags(flags *flag.FlagSet) {
	flags.StringVar(&l.name, "name", "witness", "what the report, and the pod in announcements, is called")
	flags.StringVar(&l.paths, "look", "mounts", "paths to report, with everything below them; mounts: every volume")
	flags.StringVar(&l.skip, "skip", "", "paths below which nothing is looked at")
	flags.BoolVar(&l.processes, "processes", false, "also report the processes beside this one")
}

func see(l Looking) Report {
	r := Report{
		Name:       l.name,
		Arguments:  os.Args,
		Identity:   fmt.Sprintf("uid %d euid %d gid %d egid %d umask %04o", os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid(), umask()),
		UserMap:    append(lines("/proc/self/uid_map", ""), lines("/proc/self/gid_map", "")...),
		Files:      map[string]string{},
		Mounts:     map[string]string{},
		Cgroup:     map[string]string{},
		Limits:     lines("/proc/self/limits", ""),
		OOMScore:   strings.Join(lines("/proc/self/oom_score_adj", ""), ""),
		Label:      strings.Join(lines("/proc/self/attr/current", ""), ""),
		Domain:     strings.Join(lines("/proc/sys/kernel/domainname", ""), ""),
		Sysctls:    map[string]string{},
		Namespaces: map[string]string{},
		Streams:    map[string]string{},
	}
	r.Directory, _ = os.Getwd()
	r.Hostname, _ = os.Hostname()
	r.FQDN = fqdn(r.Hostname)
	if addresses, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addresses {
			if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
				r.Addresses = append(r.Addresses, ip.IP.String())
			}
		}
	}
	r.Environment = os.Environ()
	slices.Sort(r.Environment)
	skipped := strings.FieldsFunc(l.skip, func(c rune) bool { return c == ',' })
	below := func(path string) bool {
		return slices.ContainsFunc(skipped, func(s string) bool { return path == s || strings.HasPrefix(path, s+"/") })
	}
	paths := []string{"/etc/resolv.conf", "/etc/hosts", "/etc/hostname"}
	if l.paths != "mounts" {
		paths = append(paths, strings.FieldsFunc(l.paths, func(c rune) bool { return c == ',' })...)
	}
	for path := range r.mounts(below) {
		kernel := slices.ContainsFunc([]string{"/proc", "/sys", "/dev"}, func(s string) bool { return path == s || strings.HasPrefix(path, s+"/") })
		if l.paths == "mounts" && path != "/" && (!kernel || path == "/dev/termination-log" || path == "/dev/shm") {
			paths = append(paths, path)
		}
	}
	for _, path := range paths {
		r.look(path, below)
	}
	for _, prefix := range []string{"Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp", "Cpus_allowed_list:"} {
		r.Status = append(r.Status, lines("/proc/self/status", prefix)...)
	}
	if entries, err := os.ReadDir("/dev"); err == nil {
		for _, e := range entries {
			r.Devices = append(r.Devices, e.Name()+" "+device(filepath.Join("/dev", e.Name())))
		}
	}
	for _, name := range []string{
		"memory/memory.limit_in_bytes", "memory/memory.soft_limit_in_bytes", "memory/memory.memsw.limit_in_bytes",
		"cpu/cpu.shares", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us", "cpuset/cpuset.cpus", "pids/pids.max", "devices/devices.list",
		"memory.max", "memory.min", "memory.low", "memory.high", "memory.swap.max", "memory.oom.group", "cpu.max", "cpu.weight", "cpuset.cpus", "pids.max",
	} {
		if value := lines("/sys/fs/cgroup/"+name, ""); value != nil {
			slices.Sort(value) // the order of devices is that of a Go map
			r.Cgroup[name] = strings.Join(value, " | ")
		}
	}
	for _, line := range lines("/proc/self/cgroup", "") {
		if f := strings.SplitN(line, ":", 3); len(f) == 3 {
			r.Cgroup["path of "+f[1]] = f[2]
		}
	}
	for _, name := range []string{
		"net/ipv4/ip_unprivileged_port_start", "net/ipv4/ping_group_range", "net/ipv4/ip_local_port_range", "net/ipv4/tcp_syncookies",
		"net/ipv4/tcp_keepalive_time", "net/ipv4/ip_forward", "net/core/somaxconn", "kernel/shm_rmid_forced", "kernel/shmmax",
		"kernel/msgmax", "kernel/sem", "fs/mqueue/msg_max",
	} {
		if value := lines("/proc/sys/"+name, ""); value != nil {
			r.Sysctls[name] = strings.Join(value, " ")
		}
	}
	for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		r.Namespaces[kind], _ = os.Readlink("/proc/self/ns/" + kind)
	}
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		r.Streams[name] = stream(i)
	}
	if l.processes {
		r.Processes = processes()
	}
	r.Requests = requested.all()
	return r
}

// mounts notes every mount: its options, whether others see what is mounted there, and what is behind it. Returned are
// the paths.
func (r *Report) mounts(skip func(string) bool) map[string]bool {
	paths := map[string]bool{}
	for _, line := range lines("/proc/self/mountinfo", "") {
		// "36 35 98:0 /root /mount/point rw,relatime shared:1 - ext4 /dev/root rw"
		before, after, _ := strings.Cut(line, " - ")
		f, backing := strings.Fields(before), strings.Fields(after)
		if len(f) < 6 || len(backing) < 3 || skip(filepath.Dir(f[4])) {
			continue
		}
		path, again := f[4], f[4]
		for i := 2; r.Mounts[again+" options"] != ""; i++ {
			again = fmt.Sprintf("%s (%d)", path, i)
		}
		paths[path] = true
		r.Mounts[again+" options"] = f[5]
		peers := ""
		for _, tag := range f[6:] { // the numbers of the groups are the kernel's
			kind, _, _ := strings.Cut(tag, ":")
			peers += kind + " "
		}
		r.Mounts[again+" propagation"] = peers
		r.Mounts[again+" backing"] = backing[0]
		if backing[0] != "overlay" { // whose options name the directories of the container
			r.Mounts[again+" backing"] += " " + backing[2]
		}
	}
	return paths
}

// look adds path and all below it: type, mode, owner, access, and the link's target or the file's bytes.
func (r *Report) look(path string, skip func(string) bool) {
	_ = filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
		if skip(path) {
			if entry != nil && entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, statErr := os.Lstat(path)
		if err != nil || statErr != nil {
			r.Files[path] = fmt.Sprint(err, statErr)
			return nil
		}
		owner := info.Sys().(*syscall.Stat_t)
		seen := fmt.Sprintf("%s %d:%d", info.Mode(), owner.Uid, owner.Gid)
		if info.Mode()&fs.ModeSymlink == 0 {
			seen += " " + access(path)
		}
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
			case len(data) > 4096:
				seen += fmt.Sprintf(" %d bytes, sha256 %x", len(data), sha256.Sum256(data))
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

// access says what this user may do, by the kernel's word: a read-only or noexec mount counts.
func access(path string) string {
	may := ""
	for _, one := range []struct {
		mode uint32
		sign string
	}{{4, "r"}, {2, "w"}, {1, "x"}} {
		if syscall.Access(path, one.mode) == nil {
			may += one.sign
		} else {
			may += "-"
		}
	}
	return may
}

func device(path string) string {
	info, err := os.Lstat(path)
	if err != nil {
		return err.Error()
	}
	stat := info.Sys().(*syscall.Stat_t)
	seen := fmt.Sprintf("%s %d:%d", info.Mode(), stat.Uid, stat.Gid)
	if info.Mode()&fs.ModeDevice != 0 {
		seen += fmt.Sprintf(" device %d", stat.Rdev)
	}
	if target, err := os.Readlink(path); err == nil {
		seen += " -> " + target
	}
	return seen
}

// number is what the kernel counts: of a pipe, a socket, a terminal.
var number = regexp.MustCompile(`[0-9]+`)

func stream(fd int) string {
	target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "closed"
	}
	var size [4]uint16
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	if errno == 0 {
		target += " terminal"
	}
	return number.ReplaceAllString(target, "N")
}

func processes() (found []string) {
	directories, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range directories {
		if data, err := os.ReadFile(path); err == nil && len(data) > 0 {
			found = append(found, strings.ReplaceAll(strings.TrimRight(string(data), "\x00"), "\x00", " "))
		}
	}
	slices.Sort(found)
	return found
}

// fqdn is the first name on the line of /etc/hosts that has this one, which is what `hostname -f` prints.
func fqdn(name string) string {
	for _, line := range lines("/etc/hosts", "") {
		if f := strings.Fields(line); len(f) > 1 && slices.Contains(f[1:], name) {
			return f[1]
		}
	}
	return ""
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
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		if strings.HasPrefix(scanner.Text(), prefix) {
			found = append(found, scanner.Text())
		}
	}
	return found
}

// report writes what an init container, a hook or a command in the container sees to a file.
func report(args []string) error {
	flags := flag.NewFlagSet("report", flag.ExitOnError)
	var looking Looking
	looking.flags(flags)
	into := flags.String("into", "", "the file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	looking.skip += "," + filepath.Dir(*into) // it would see what is being written
	seen := see(looking)
	// It ends before anybody compares, and the kernel gives the numbers of namespaces that are gone to others.
	delete(seen.Namespaces, "mnt")
	seen.Namespaces["pid"] = fmt.Sprint("its first process: ", os.Getpid() == 1)
	data, err := json.Marshal(seen)
	if err != nil {
		return err
	}
	if err := os.WriteFile(*into+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(*into+".new", *into)
}
