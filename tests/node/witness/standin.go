package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// standIn is what answers in the place of an API server that is not itself:
//
//	slow                     the API server, every answer after 5 s
//	mute                     its certificate, and never an answer
//	401, 403, 429, 500, …    its certificate, and this status to everything
//	wrong-ca                 its names, signed by a CA of the same name; says 200
//	expired, not-yet-valid   its names and CA, at another time; says 200
//	foreign                  somebody else's TLS server; says 200
//	portal                   plain HTTP, which sends everybody to a page of its own
func standIn(args []string) error {
	flags := flag.NewFlagSet("stand-in", flag.ExitOnError)
	pki := flags.String("pki", "pki", "directory of the site's certificates")
	backend := flags.String("backend", "https://127.0.0.1:6443", "the API server, for slow")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return fmt.Errorf("%s", usage)
	}
	address, kind := flags.Arg(0), flags.Arg(1)
	status := func(code int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			fmt.Fprintln(w, http.StatusText(code))
		})
	}
	handler := status(http.StatusOK)
	now := time.Now()
	from, to := now.Add(-time.Hour), now.Add(24*time.Hour)
	ca, key, err := authority(*pki)
	if err != nil {
		return err
	}
	names := []string{"api.site.test", "localhost", "kubernetes.default.svc"}
	switch kind {
	case "portal":
		return http.ListenAndServe(address, http.RedirectHandler("http://portal.test/welcome", http.StatusFound))
	case "slow":
		if handler, err = delayed(*backend, *pki, 5*time.Second); err != nil {
			return err
		}
	case "mute":
		handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	case "wrong-ca":
		if ca, key, err = newAuthority(ca.Subject); err != nil {
			return err
		}
	case "expired":
		from, to = now.Add(-48*time.Hour), now.Add(-24*time.Hour)
	case "not-yet-valid":
		from, to = now.Add(24*time.Hour), now.Add(48*time.Hour)
	case "foreign":
		names = []string{"router.test"}
		if ca, key, err = newAuthority(pkix.Name{CommonName: "router.test"}); err != nil {
			return err
		}
	default:
		code, err := strconv.Atoi(kind)
		if err != nil || code < 200 || code > 599 {
			return fmt.Errorf("stand-in: %s is no kind of it", kind)
		}
		handler = status(code)
	}
	certificate, err := sign(ca, key, names, from, to)
	if err != nil {
		return err
	}
	clients := x509.NewCertPool()
	clients.AddCert(ca)
	server := &http.Server{Addr: address, Handler: handler, TLSConfig: &tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients}}
	if kind == "wrong-ca" || kind == "foreign" {
		server.TLSConfig.ClientAuth = tls.NoClientCert
	}
	return server.ListenAndServeTLS("", "")
}

// delayed passes requests on to the API server, which trusts it to say who asks: a client's certificate ends here.
func delayed(backend, pki string, by time.Duration) (http.Handler, error) {
	target, err := url.Parse(backend)
	if err != nil {
		return nil, err
	}
	own, err := tls.LoadX509KeyPair(filepath.Join(pki, "front-proxy.crt"), filepath.Join(pki, "front-proxy.key"))
	if err != nil {
		return nil, err
	}
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1, // a watch is told at once
		Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{
			Certificates: []tls.Certificate{own}, InsecureSkipVerify: true}}, // it is this machine's own loopback
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			for name := range r.Out.Header {
				if len(name) > 9 && name[:9] == "X-Remote-" {
					r.Out.Header.Del(name)
				}
			}
			if state := r.In.TLS; state != nil && len(state.VerifiedChains) > 0 {
				who := state.PeerCertificates[0].Subject
				r.Out.Header.Set("X-Remote-User", who.CommonName)
				for _, group := range append(who.Organization, "system:authenticated") {
					r.Out.Header.Add("X-Remote-Group", group)
				}
			}
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(by):
			proxy.ServeHTTP(w, r)
		}
	}), nil
}

// authority reads the site's CA.
func authority(pki string) (*x509.Certificate, crypto.Signer, error) {
	block := func(name string) ([]byte, error) {
		text, err := os.ReadFile(filepath.Join(pki, name))
		if err != nil {
			return nil, err
		}
		found, _ := pem.Decode(text)
		if found == nil {
			return nil, fmt.Errorf("%s holds no PEM", name)
		}
		return found.Bytes, nil
	}
	raw, err := block("ca.crt")
	if err != nil {
		return nil, nil, err
	}
	certificate, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, nil, err
	}
	if raw, err = block("ca.key"); err != nil {
		return nil, nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(raw)
	if err != nil {
		return nil, nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("ca.key cannot sign")
	}
	return certificate, signer, nil
}

// newAuthority makes a CA that nobody knows.
func newAuthority(subject pkix.Name) (*x509.Certificate, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: subject, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	certificate, err := x509.ParseCertificate(raw)
	return certificate, key, err
}

func sign(ca *x509.Certificate, by crypto.Signer, names []string, from, to time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 1, 0, 1), net.IPv4(10, 1, 0, 2), net.IPv4(10, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: from, NotAfter: to}
	raw, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), by)
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, err
}
