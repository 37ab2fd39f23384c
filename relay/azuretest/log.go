package azuretest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Request is one line of the request log. It holds no body, no header and no
// query but the api-version, so it holds no secret.
type Request struct {
	Number     int       `json:"number"` // from 1
	Method     string    `json:"method"`
	Path       string    `json:"path"` // as the caller spelt it
	APIVersion string    `json:"apiVersion,omitempty"`
	Began      time.Time `json:"began"`
	Ended      time.Time `json:"ended,omitzero"`
	Status     int       `json:"status"`          // 0 while open, and for ever when dropped
	Acted      bool      `json:"acted"`           // the server did what it was asked, or refused to by its own rules
	Held       bool      `json:"held,omitempty"`  // is now held by a fault
	Fault      int       `json:"fault,omitempty"` // number of the fault that hit it; -1 is [WithTrouble]
}

// Requests returns the log of every request since the start, oldest first.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Request, len(s.log))
	for i, r := range s.log {
		out[i] = *r
	}
	return out
}

// Count returns how many requests of the method ("" or "*" for any) came for a
// path of the pattern, in which * stands for any run of characters; letters
// match without case.
func (s *Server) Count(method, path string) int {
	n := 0
	for _, r := range s.Requests() {
		if matches(method, path, r.Method, r.Path) {
			n++
		}
	}
	return n
}

// Wait returns when at least n requests of the method and path pattern of
// [Server.Count] have settled: answered, dropped, or held by a fault. A request
// held after acting has acted when Wait returns.
func (s *Server) Wait(ctx context.Context, method, path string, n int) error {
	for {
		seen := 0
		s.mu.Lock()
		for _, r := range s.log {
			if (r.Held || !r.Ended.IsZero()) && matches(method, path, r.Method, r.Path) {
				seen++
			}
		}
		changed := s.changed
		s.mu.Unlock()
		if seen >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d requests %s %s came: %w", seen, n, or(method, "*"), or(path, "*"), ctx.Err())
		case <-s.closing:
			return fmt.Errorf("%d of %d requests %s %s came: the server was closed", seen, n, or(method, "*"), or(path, "*"))
		}
	}
}

// begin opens the log's line for a call and takes the fault that hits it, which
// may be nil.
func (s *Server) begin(c *call) (*Request, *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &Request{Number: len(s.log) + 1, Method: c.Method, Path: c.URL.Path,
		APIVersion: c.URL.Query().Get("api-version"), Began: s.now().UTC()}
	s.log = append(s.log, r)
	f := s.takeFault(c)
	if f == nil {
		f = s.trouble.strike(c)
	}
	if f != nil {
		r.Fault = f.number
	}
	s.signal()
	return r, f
}

// settle closes the log's line.
func (s *Server) settle(r *Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Held, r.Ended = false, s.now().UTC()
	s.signal()
}

func (s *Server) signal() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// hold waits until the call is released, and reports whether it was: the other
// ways out are the client's leaving and the server's end.
func (s *Server) hold(entry *Request, r *http.Request) bool {
	s.mu.Lock()
	entry.Held = true
	release := s.release
	s.signal()
	s.mu.Unlock()
	released := false
	select {
	case <-release:
		released = true
	case <-r.Context().Done(): // Close ends it as well
	}
	s.mu.Lock()
	entry.Held = false
	s.signal()
	s.mu.Unlock()
	return released
}

// Release lets every call go on that is held now and returns how many there
// were.
func (s *Server) Release() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.log {
		if r.Held {
			n++
		}
	}
	close(s.release)
	s.release = make(chan struct{})
	return n
}

func matches(method, pattern, haveMethod, havePath string) bool {
	return (method == "" || method == "*" || strings.EqualFold(method, haveMethod)) &&
		(pattern == "" || glob(fold(pattern), fold(havePath)))
}

// glob reports whether s is of the pattern, in which * is any run of characters.
func glob(pattern, s string) bool {
	head, rest, found := strings.Cut(pattern, "*")
	if !found {
		return pattern == s
	}
	if !strings.HasPrefix(s, head) {
		return false
	}
	s = s[len(head):]
	for {
		part, next, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(s, part)
		}
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s, rest = s[i+len(part):], next
	}
}
