package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
)

// serveNames answers A questions for the names it was given, says NXDOMAIN to all else.
func serveNames(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("%s", usage)
	}
	known := map[string]net.IP{}
	for _, a := range args[1:] {
		name, ip, _ := strings.Cut(a, "=")
		known[name] = net.ParseIP(ip).To4()
	}
	connection, err := net.ListenPacket("udp", args[0])
	if err != nil {
		return err
	}
	for buffer := make([]byte, 512); ; {
		n, from, err := connection.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if answer := reply(buffer[:n], known); answer != nil {
			_, _ = connection.WriteTo(answer, from)
		}
	}
}

// reply answers one question in the wire format of RFC 1035: a header of 12 bytes, the question repeated,
// and for a known name one A record that points back at it.
func reply(question []byte, known map[string]net.IP) []byte {
	if len(question) < 17 || binary.BigEndian.Uint16(question[4:]) != 1 {
		return nil
	}
	end, labels := 12, []string{}
	for question[end] != 0 {
		length := int(question[end])
		if end+1+length+5 > len(question) {
			return nil
		}
		labels = append(labels, string(question[end+1:end+1+length]))
		end += 1 + length
	}
	kind := binary.BigEndian.Uint16(question[end+1:])
	end += 5
	answer := append([]byte{}, question[:end]...)
	copy(answer[2:12], []byte{0x85, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}) // response, authoritative, recursion offered
	ip := known[strings.ToLower(strings.Join(labels, "."))]
	switch {
	case ip == nil:
		answer[3] |= 3 // NXDOMAIN
	case kind == 1:
		answer[7] = 1
		answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4)
		answer = append(answer, ip...)
	}
	return answer
}

// hang accepts and keeps silent, as a load balancer does whose backends are gone.
func hang(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s", usage)
	}
	listener, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	for open := []net.Conn{}; ; {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		open = append(open, connection)
	}
}
