package azuretest

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// State is what the server holds, without tokens and keys.
type State struct {
	Subscriptions []SubscriptionState `json:"subscriptions"`
	Groups        []GroupState        `json:"groups"`
	Registrations []RegistrationState `json:"registrations"`
	Locks         []LockState         `json:"locks"`
}

// SubscriptionState is a subscription and the state of its provider
// Microsoft.AzureStack.
type SubscriptionState struct {
	ID       string `json:"id"`
	State    string `json:"state"`
	Provider string `json:"provider"`
}

// GroupState is a resource group.
type GroupState struct {
	ID       string            `json:"id"`
	Location string            `json:"location"`
	Tags     map[string]string `json:"tags,omitempty"`
}

// RegistrationState is a registration. Since is the time of its last PUT.
type RegistrationState struct {
	ID           string            `json:"id"`
	CloudID      string            `json:"cloudId,omitempty"`
	ObjectID     string            `json:"objectId"`
	BillingModel string            `json:"billingModel"`
	ETag         string            `json:"etag"`
	Since        time.Time         `json:"since"`
	Tags         map[string]string `json:"tags,omitempty"`
}

// LockState is a lock.
type LockState struct {
	ID    string `json:"id"`
	Level string `json:"level"`
	Notes string `json:"notes,omitempty"`
}

// State returns what the server holds now, each list sorted by id.
func (s *Server) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := State{[]SubscriptionState{}, []GroupState{}, []RegistrationState{}, []LockState{}}
	for _, id := range sorted(s.subs) {
		sub := s.subs[id]
		out.Subscriptions = append(out.Subscriptions, SubscriptionState{sub.ID, sub.State, sub.Provider})
	}
	for _, id := range sorted(s.groups) {
		g := s.groups[id]
		out.Groups = append(out.Groups, GroupState{g.ID, g.Location, g.Tags})
	}
	for _, id := range sorted(s.regs) {
		r := s.regs[id]
		out.Registrations = append(out.Registrations, RegistrationState{r.id(), r.token.CloudID, r.token.ObjectID, r.token.BillingModel, r.etag, r.since.UTC(), r.tags})
	}
	for _, l := range s.sortedLocks() {
		out.Locks = append(out.Locks, LockState{l.id(), l.level, l.notes})
	}
	return out
}

// Control returns a handler that drives the server over HTTP:
//
//	POST   /faults                         adds the Fault of the JSON body
//	DELETE /faults                         removes every fault
//	POST   /release                        lets held calls go on: {"released":N}
//	GET    /log                            the requests so far, a list of Request
//	GET    /state                          the State
//	POST   /clock                          {"advance":"10m"} moves the clock, see
//	       [Server.Advance]; answers {"now":"…"}
//	GET    /wait?method=&path=&count=&timeout=   answers {"seen":true} once
//	       count (default 1) such requests have settled as in [Server.Wait], and
//	       408 after timeout (a Go duration, default 30s)
//
// An error is answered with {"error":"…"}. The handler asks for no credentials:
// serve it on loopback under a path that nobody guesses, as cmd/azuretest does.
func (s *Server) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /faults", func(w http.ResponseWriter, r *http.Request) {
		var f Fault
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16))
		dec.DisallowUnknownFields()
		err := dec.Decode(&f)
		if err == nil {
			err = f.Valid()
		}
		if err != nil {
			reply(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		s.Fail(f)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("DELETE /faults", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearFaults()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /release", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]int{"released": s.Release()})
	})
	mux.HandleFunc("POST /clock", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Advance string `json:"advance"`
		}
		d, err := time.Duration(0), json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&in)
		if err == nil {
			d, err = time.ParseDuration(in.Advance)
		}
		if err != nil || d < 0 {
			reply(w, http.StatusBadRequest, map[string]string{"error": "advance is not a duration, or a negative one"})
			return
		}
		s.Advance(d)
		reply(w, http.StatusOK, map[string]time.Time{"now": s.now().UTC()})
	})
	mux.HandleFunc("GET /log", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, s.Requests()) })
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, s.State()) })
	mux.HandleFunc("GET /wait", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		count, err := strconv.Atoi(or(q.Get("count"), "1"))
		timeout, err2 := time.ParseDuration(or(q.Get("timeout"), "30s"))
		if err != nil || err2 != nil {
			reply(w, http.StatusBadRequest, map[string]string{"error": "count is not a number or timeout is not a duration"})
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		if err := s.Wait(ctx, q.Get("method"), q.Get("path"), count); err != nil {
			reply(w, http.StatusRequestTimeout, map[string]string{"error": err.Error()})
			return
		}
		reply(w, http.StatusOK, map[string]bool{"seen": true})
	})
	return mux
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(encode(v), '\n'))
}
