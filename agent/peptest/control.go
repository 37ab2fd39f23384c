package peptest

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// Control returns a handler that drives the server over HTTP:
//
//	POST   /faults                   adds the Fault of the JSON body
//	DELETE /faults                   removes every fault and lets held cmdlets go on
//	POST   /release                  lets held cmdlets go on: {"released":N}
//	POST   /finish                   ends the time that actions take: {"running":BOOL}
//	GET    /log                      the exchanges so far, a list of Request
//	GET    /state                    the Stamp
//	GET    /wait?action=&count=&timeout=   answers {"seen":true} once count (default
//	       1) exchanges of the action are in the log, and 408 after timeout (a Go
//	       duration, default 30s)
//
// An error is answered with {"error":"…"}. The handler asks for no credentials:
// serve it on loopback under a path that nobody guesses, as cmd/peptest does.
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
		if err := s.ClearFaults(); err != nil {
			reply(w, http.StatusInternalServerError, map[string]string{"error": err.Error()})
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /release", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]int{"released": s.Release()})
	})
	mux.HandleFunc("POST /finish", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]bool{"running": s.Finish()})
	})
	mux.HandleFunc("GET /log", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, s.Requests()) })
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, s.Stamp()) })
	mux.HandleFunc("GET /wait", func(w http.ResponseWriter, r *http.Request) {
		q, count, timeout := r.URL.Query(), 1, 30*time.Second
		var err, err2 error
		if v := q.Get("count"); v != "" {
			count, err = strconv.Atoi(v)
		}
		if v := q.Get("timeout"); v != "" {
			timeout, err2 = time.ParseDuration(v)
		}
		if err != nil || err2 != nil {
			reply(w, http.StatusBadRequest, map[string]string{"error": "count is not a number or timeout is not a duration"})
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		if err := s.Wait(ctx, q.Get("action"), count); err != nil {
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
	_ = json.NewEncoder(w).Encode(v)
}
