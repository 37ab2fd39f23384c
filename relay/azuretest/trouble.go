package azuretest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
)

// trouble strikes a share of all calls of Resource Manager.
type trouble struct {
	share  float64
	random *rand.Rand
}

// WithTrouble lets a share of all calls of Resource Manager, from 0 to 1, fail:
// with 500, 503, 429, or the connection dropped, before or after the call acted.
// The seed decides which: the same seed and the same order of calls give the
// same failures. Faults of [Server.Fail] come first.
func WithTrouble(seed uint64, share float64) Option {
	return func(s *Server) { s.trouble = &trouble{share, rand.New(rand.NewPCG(seed, 0))} }
}

// strike returns the failure of the next call, or nil.
func (t *trouble) strike(c *call) *Fault {
	if t == nil || c.op == nil || c.op.anonymous || t.random.Float64() >= t.share {
		return nil
	}
	f := &Fault{number: -1}
	switch t.random.IntN(7) {
	case 0:
		f.Status = http.StatusInternalServerError
	case 1:
		f.Status, f.Acted = http.StatusInternalServerError, true
	case 2:
		f.Status = http.StatusServiceUnavailable
	case 3:
		f.Status, f.Acted = http.StatusServiceUnavailable, true
	case 4:
		f.Status, f.Code, f.Header = http.StatusTooManyRequests, "TooManyRequests", map[string]string{"Retry-After": "1"}
	case 5:
		f.Drop = BeforeActing
	default:
		f.Drop = AfterActing
	}
	return f
}

func (t *trouble) valid() error {
	if t != nil && (t.share < 0 || t.share > 1) {
		return fmt.Errorf("share %g of failing calls is not from 0 to 1", t.share)
	}
	return nil
}
