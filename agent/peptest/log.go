package peptest

import (
	"context"
	"fmt"
)

// Request is one HTTP exchange. Nothing secret is in it.
type Request struct {
	Address    int    `json:"address"` // from 1
	Action     string `json:"action"`  // see Fault.Action
	Status     int    `json:"status"`  // of HTTP; 0 where no reply was sent
	Sealed     bool   `json:"sealed"`
	Bytes      int    `json:"bytes"` // of the request's body
	Shell      string `json:"shell,omitempty"`
	Command    string `json:"command,omitempty"` // command id
	Cmdlet     string `json:"cmdlet,omitempty"`  // of the command, once its pipeline is known
	Signal     string `json:"signal,omitempty"`  // code of a Signal
	MessageID  string `json:"messageId,omitempty"`
	WSManFault uint32 `json:"wsmanFault,omitempty"`
	Fault      Kind   `json:"fault,omitempty"` // that struck
	Note       string `json:"note,omitempty"`  // why it was refused

	logged bool
}

// record writes an exchange to the log, once.
func (s *Server) record(r *Request) {
	if r.logged {
		return
	}
	r.logged = true
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, *r)
	close(s.logged)
	s.logged = make(chan struct{})
}

// Requests returns the exchanges so far, in the order of their replies.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request{}, s.log...)
}

// Wait waits until count exchanges of an action, "" for any, are in the log. The
// error says how many there were when ctx ended.
func (s *Server) Wait(ctx context.Context, action string, count int) error {
	for {
		n := 0
		s.mu.Lock()
		for _, r := range s.log {
			if action == "" || r.Action == action {
				n++
			}
		}
		next := s.logged
		s.mu.Unlock()
		if n >= count {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d exchanges %s: %w", n, count, action, context.Cause(ctx))
		}
	}
}
