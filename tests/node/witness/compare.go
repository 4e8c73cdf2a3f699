package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// collect asks every address for its reports, and writes each to DIRECTORY/NAME.SIDE.json. Names of one pod are alike up
// to their first underscore.
func collect(args []string) error {
	flags := flag.NewFlagSet("collect", flag.ExitOnError)
	into := flags.String("into", ".", "directory")
	side := flags.String("side", "", "parent or twin")
	network := flags.String("network", "", "network of which every address is asked")
	ports := flags.String("ports", "8080", "on these ports")
	hosts := flags.String("hosts", "", "further addresses, with ports")
	names := flags.String("names", ".*", "regular expression of what is of interest")
	node := flags.String("node", "", "process of the node: to say which namespaces are the node's")
	if err := flags.Parse(args); err != nil {
		return err
	}
	wanted, err := regexp.Compile("^(?:" + *names + ")$")
	if err != nil {
		return err
	}
	targets := strings.FieldsFunc(*hosts, func(c rune) bool { return c == ',' })
	prefix, err := netip.ParsePrefix(*network)
	if err != nil {
		return err
	}
	for a := prefix.Addr().Next(); prefix.Contains(a); a = a.Next() {
		for port := range strings.SplitSeq(*ports, ",") {
			targets = append(targets, net.JoinHostPort(a.String(), port))
		}
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: time.Second}).DialContext, DisableKeepAlives: true}}
	var all []Report
	var wait sync.WaitGroup
	var lock sync.Mutex
	for _, target := range targets {
		wait.Go(func() {
			response, err := client.Get("http://" + target + "/reports")
			if err != nil {
				return // nobody there
			}
			defer response.Body.Close()
			var found []Report
			data, err := io.ReadAll(response.Body)
			if err == nil && response.StatusCode == http.StatusOK {
				err = json.Unmarshal(data, &found)
			} else if err == nil {
				err = fmt.Errorf("%s", data)
			}
			if err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", target, err)
			}
			lock.Lock()
			all = append(all, found...)
			lock.Unlock()
		})
	}
	wait.Wait()
	nodes := map[string]string{}
	for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		nodes[kind], _ = os.Readlink(filepath.Join("/proc", *node, "ns", kind))
	}
	all = slices.DeleteFunc(all, func(r Report) bool { return !wanted.MatchString(r.Name) })
	slices.SortFunc(all, func(a, b Report) int { return strings.Compare(a.Name, b.Name) })
	first := map[string]string{}
	for _, r := range all {
		pod, _, _ := strings.Cut(r.Name, "_")
		for kind, id := range r.Namespaces {
			if !strings.HasPrefix(id, kind+":[") {
				continue
			}
			owner := pod + " " + kind + " " + id
			if first[owner] == "" {
				first[owner] = "own, as first seen in " + r.Name
			}
			if id == nodes[kind] {
				r.Namespaces[kind] = "the node's"
			} else {
				r.Namespaces[kind] = first[owner]
			}
		}
		data, err := json.MarshalIndent(r, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(*into, r.Name+"."+*side+".json"), data, 0o644); err != nil {
			return err
		}
	}
	fmt.Println(len(all), "reports")
	return nil
}

// exception is a difference between parent and twin that must be: in which reports, and in which values.
type exception struct {
	names, values *regexp.Regexp
	line          string
	used          int
}

// exceptions reads a file of `NAMES VALUES  # why` lines, two regular expressions that must match the whole.
func exceptions(path string) (found []*exception, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		rule, why, _ := strings.Cut(line, "  # ")
		names, values, ok := strings.Cut(strings.TrimSpace(rule), " ")
		if !ok || why == "" {
			return nil, fmt.Errorf("%s: %q is not NAMES VALUES  # why", path, line)
		}
		e := exception{line: line}
		if e.names, err = regexp.Compile("^(?:" + names + ")$"); err != nil {
			return nil, err
		}
		if e.values, err = regexp.Compile("^(?:" + strings.TrimSpace(values) + ")$"); err != nil {
			return nil, err
		}
		found = append(found, &e)
	}
	return found, nil
}

// compare prints every value in which the reports of parents and twins differ: of two files, or of all
// NAME.parent.json and NAME.twin.json in a directory. Nothing is left out but the pod's own address, which is new by
// nature, what the exceptions name, and identifiers that the kubelet and the runtime make up.
func compare(args []string) error {
	flags := flag.NewFlagSet("compare", flag.ExitOnError)
	except := flags.String("except", "", "file of differences that must be")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var known []*exception
	if *except != "" {
		var err error
		if known, err = exceptions(*except); err != nil {
			return err
		}
	}
	values, reports, differ := 0, 0, 0
	pair := func(parent, twin string) error {
		v, d, err := compareTwo(parent, twin, known)
		values, differ, reports = values+v, differ+d, reports+1
		return err
	}
	switch {
	case flags.NArg() == 2:
		if err := pair(flags.Arg(0), flags.Arg(1)); err != nil {
			return err
		}
	case flags.NArg() == 1:
		parents, err := filepath.Glob(filepath.Join(flags.Arg(0), "*.parent.json"))
		if err != nil {
			return err
		}
		for _, parent := range parents {
			if err := pair(parent, strings.TrimSuffix(parent, ".parent.json")+".twin.json"); err != nil {
				return err
			}
		}
		for _, e := range known {
			if e.used == 0 && differ == 0 {
				fmt.Printf("no difference needs this exception: %s\n", e.line)
				differ++
			}
		}
	default:
		return fmt.Errorf("compare wants two reports or a directory")
	}
	if differ > 0 {
		fmt.Println(differ, "differences")
		os.Exit(3)
	}
	fmt.Printf("%d reports, equal in %d values\n", reports, values)
	return nil
}

func compareTwo(parent, twin string, known []*exception) (values, differ int, err error) {
	var sides [2]map[string]string
	name := ""
	for i, path := range []string{parent, twin} {
		data, err := os.ReadFile(path)
		if err != nil {
			return 0, 0, err
		}
		var r Report
		if err := json.Unmarshal(data, &r); err != nil {
			return 0, 0, fmt.Errorf("%s: %w", path, err)
		}
		sides[i] = r.flat()
		name = r.Name
	}
	keys := map[string]bool{}
	for _, side := range sides {
		for key := range side {
			keys[key] = true
		}
	}
next:
	for _, key := range slices.Sorted(mapKeys(keys)) {
		a, b := sides[0][key], sides[1][key]
		if a == b {
			continue
		}
		for _, e := range known {
			if e.names.MatchString(name) && e.values.MatchString(key) {
				e.used++
				continue next
			}
		}
		differ++
		fmt.Printf("%s: %s\n  parent: %.300q\n  twin:   %.300q\n", name, key, a, b)
	}
	return len(keys), differ, nil
}

// identifiers are UIDs of pods and ids of containers in paths.
var identifiers = regexp.MustCompile(`[0-9a-f]{8}([-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{64}`)

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
		set := func(key, v string) {
			v = replace.Replace(v)
			if name == "Cgroup" {
				v = identifiers.ReplaceAllString(v, "(id)")
			}
			out[key] = v
		}
		switch field := value.Field(i).Interface().(type) {
		case string:
			set(name, field)
		case []string:
			for i, v := range field {
				if name == "Environment" {
					key, v, _ := strings.Cut(v, "=")
					for key = name + " " + key; out[key] != ""; key += " again" {
					}
					set(key, v)
					continue
				}
				set(fmt.Sprintf("%s %02d", name, i), v)
			}
		case map[string]string:
			for k, v := range field {
				set(name+" "+k, v)
			}
		}
	}
	return out
}
