package azure

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// maxBody is the longest answer that is read, in bytes: one page of a list,
// or an activation key of at most 1 MiB, with room to spare.
const maxBody = 8 << 20

// newHTTPClient makes the one HTTP client of a connection: the proxy of the
// environment, HTTP/2, TLS 1.2 or newer, the machine's roots and those of
// caFile, and no redirects, as neither Resource Manager nor Entra sends any and
// a token must not follow one.
func newHTTPClient(caFile string) (*http.Client, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	t.ResponseHeaderTimeout = 2 * time.Minute
	if caFile != "" {
		roots, err := x509.SystemCertPool()
		if err != nil {
			return nil, fault.New(fault.Unexpected, "the roots of this machine cannot be read: %w", err)
		}
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fault.New(fault.Medium, "the CA file cannot be read: %w", err)
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Refused, "the CA file %q holds no certificate in PEM form", caFile)
		}
		t.TLSClientConfig.RootCAs = roots
	}
	return &http.Client{
		Transport:     wire{t},
		Timeout:       5 * time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// wire bounds every answer and marks every failure that happened on the way, so
// that they can be told from those that a server decided.
type wire struct{ base http.RoundTripper }

func (w wire) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.base.RoundTrip(req)
	if err != nil {
		return nil, lose(req, err)
	}
	resp.Body = &bounded{req: req, body: resp.Body, left: maxBody}
	return resp, nil
}

// bounded reads at most left bytes and fails on the next one.
type bounded struct {
	req  *http.Request
	body io.ReadCloser
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(p) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.body.Read(p)
	if n > b.left {
		return 0, &tooLong{host: b.req.URL.Host}
	}
	b.left -= n
	if err != nil && err != io.EOF {
		err = lose(b.req, err)
	}
	return n, err
}

func (b *bounded) Close() error { return b.body.Close() }

// tooLong is an answer beyond maxBody.
type tooLong struct{ host string }

func (t *tooLong) Error() string {
	return fmt.Sprintf("the answer of %s is longer than %d bytes", t.host, maxBody)
}

// lost is a call whose answer did not arrive.
type lost struct {
	host string
	err  error
}

func (l *lost) Error() string { return l.host + ": " + l.err.Error() }
func (l *lost) Unwrap() error { return l.err }

func lose(req *http.Request, err error) error {
	l := &lost{req.URL.Host, err}
	if w, ok := req.Context().Value(witnessKey{}).(*witness); ok {
		w.saw(l)
	}
	return l
}

// untrusted reports whether TLS failed because nobody vouches for the server:
// asking again does not help.
func untrusted(err error) bool {
	var c *tls.CertificateVerificationError
	return errors.As(err, &c)
}

// unreachable explains a lost call; nil when err is not one.
func unreachable(purpose string, err error) error {
	var l *lost
	var long *tooLong
	switch {
	case errors.As(err, &long):
		return fault.New(fault.Refused, "cannot %s: %w", purpose, long)
	case !errors.As(err, &l):
		return nil
	case untrusted(l):
		return fault.New(fault.Refused, "cannot %s: the certificate of %s is not signed by a root of this machine or of the CA file: %w", purpose, l.host, l.err).
			Hint("azs-relay register BUNDLE --ca-file ROOTS.pem")
	}
	return fault.New(fault.Unreachable, "cannot %s: %s cannot be reached: %w", purpose, l.host, l.err).Hint("azs-relay next")
}

// witness keeps the last lost call to one host during a token request:
// azidentity and MSAL hand on only the text of such an error.
type witness struct {
	host string
	last *lost
}

type witnessKey struct{}

func (w *witness) saw(l *lost) {
	if strings.EqualFold(l.host, w.host) {
		w.last = l
	}
}

func withWitness(ctx context.Context, w *witness) context.Context {
	return context.WithValue(ctx, witnessKey{}, w)
}
