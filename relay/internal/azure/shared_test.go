package azure_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// limited is a site whose buckets and client run on the same virtual clock.
func limited(t testing.TB, opts ...azuretest.Option) *site {
	w := &watch{now: time.Now()}
	s := newSite(t, append(opts, azuretest.WithClock(w), azuretest.WithTokenLifetime(24*time.Hour), azuretest.WithThrottling(azuretest.AzureLimits()),
		azuretest.WithRegistration(azuretest.Registration{Name: "stamp", CloudID: "c1"}))...)
	limits := azure.AzureLimits()
	s.watch, s.options.Clock, s.options.Sleep, s.options.Progress, s.options.Limit = w, w, w.sleep, w.progress, &limits
	return s
}

func refused(s *site) (n int) {
	for _, r := range s.Requests() {
		if r.Status == http.StatusTooManyRequests {
			n++
		}
	}
	return n
}

// A client that keeps to the documented rates is never refused by a server that
// does, and needs no more time than the bucket: 200 at once, then 10 a second.
func TestLimitKeepsToTheBucket(t *testing.T) {
	s := limited(t)
	c, id := s.connect(t), s.id(t, "azurestack", "stamp")
	const writes = 1000
	for range writes / 2 {
		if _, err := c.PutLock(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if _, err := c.ActivationKey(t.Context(), id); err != nil { // a write to Azure
			t.Fatal(err)
		}
	}
	ideal := time.Duration((writes - 200) / 10 * float64(time.Second))
	if took := s.total(); refused(s) != 0 || took < ideal || took > ideal*105/100 {
		t.Errorf("%d writes took %s with %d refusals; the bucket allows %s", writes, took, refused(s), ideal)
	}
}

// Where the bucket is used by others as well, the client gives way.
func TestLimitGivesWay(t *testing.T) {
	s := limited(t)
	c, id := s.connect(t), s.id(t, "azurestack", "stamp")
	s.options.Limit = nil
	other := s.connect(t)
	for range 185 { // the portal of the same person
		if _, err := other.PutLock(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		if _, err := c.PutLock(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if n := refused(s); n != 0 {
		t.Errorf("%d refusals although Azure had told how few were left", n)
	}
}

// While Azure's 429 is waited out by one, nobody else asks.
func TestLimitHoldsEverybodyAfterARefusal(t *testing.T) {
	s := limited(t)
	var c *azure.Client
	nested := false
	s.options.Sleep = func(ctx context.Context, d time.Duration) error {
		if !nested {
			nested = true
			if _, err := c.PutLock(ctx, s.id(t, "azurestack", "stamp")); err != nil {
				t.Error(err)
			}
			if waited := s.total(); waited < time.Minute || waited > 61*time.Second {
				t.Errorf("the other call waited %s", waited)
			}
		}
		return s.watch.sleep(ctx, d)
	}
	c = s.connect(t)
	s.Fail(azuretest.Throttle("POST", "*", 60, 1))
	if _, err := c.ActivationKey(t.Context(), s.id(t, "azurestack", "stamp")); err != nil {
		t.Fatal(err)
	}
	if !nested || refused(s) != 1 {
		t.Errorf("%d refusals", refused(s))
	}
}

// Of a hundred stamps that ask the same, one asks; each gets the answer.
func TestSharedAsksOnce(t *testing.T) {
	s := newSite(t, azuretest.WithSubscription(azuretest.Subscription{Provider: "NotRegistered", ProviderPolls: 1}), azuretest.WithPageSize(7))
	c := s.connect(t).Shared()
	group := s.id(t, "azurestack", "x").Group()
	sub := group.Subscription()
	before := len(s.Requests())
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			ctx := t.Context()
			_, err1 := c.Subscription(ctx, s.Subscription)
			state, err2 := c.Provider(ctx, sub)
			var err3 error
			if state != azure.Registered {
				_, err3 = c.RegisterProvider(ctx, sub)
				err3 = errors.Join(err3, c.WaitProvider(ctx, sub))
			}
			_, err4 := c.Locations(ctx, sub)
			_, there, err5 := c.Group(ctx, group)
			if !there {
				_, err := c.CreateGroup(ctx, group, "eastus")
				err5 = errors.Join(err5, err)
			}
			_, err6 := c.Registrations(ctx, sub)
			id := s.id(t, "azurestack", fmt.Sprintf("stamp-%d", i))
			err7 := c.CheckWrites(ctx, []azure.Request{c.Requests.PutRegistration(id, token(uint64(i+1)))})
			_, err8 := c.PutRegistration(ctx, id, token(uint64(i+1)))
			if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := len(s.Requests()) - before; n > 100+10 {
		t.Errorf("%d requests for 100 stamps", n)
	}
	for _, once := range []struct{ method, path string }{{"GET", "/subscriptions/*/locations"}, {"PUT", "/subscriptions/*/resourcegroups/azurestack"}, {"POST", "*/register"}, {"GET", "*/permissions"}} {
		if n := s.Count(once.method, once.path); n != 1 {
			t.Errorf("%d times %s %s", n, once.method, once.path)
		}
	}

	// What the view did stands in its list, without another call.
	gone := s.id(t, "azurestack", "stamp-3")
	if err := c.DeleteRegistration(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	before = s.Count("GET", "*/registrations")
	regs, err := c.Registrations(t.Context(), sub)
	if err != nil || len(regs) != 99 || slices.ContainsFunc(regs, func(r azure.Registration) bool { return r.ID.Same(gone) }) || s.Count("GET", "*/registrations") != before {
		t.Errorf("%d registrations, %v", len(regs), err)
	}
}

// A failure is told to all that waited for it and not remembered; whose own time
// is over does not end the others.
func TestSharedForgetsFailures(t *testing.T) {
	s := newSite(t)
	c := s.connect(t).Shared()
	sub := s.id(t, "azurestack", "x").Subscription()
	s.Fail(azuretest.Fault{Method: "GET", Path: "*/locations", Times: 1, Code: "AuthorizationFailed"})
	if _, err := c.Locations(t.Context(), sub); fault.KindOf(err) != fault.Permanent {
		t.Errorf("%v", err)
	}
	if l, err := c.Locations(t.Context(), sub); err != nil || len(l) == 0 {
		t.Errorf("%v, %v", l, err)
	}

	s.Fail(azuretest.Fault{Method: "GET", Path: "*/microsoft.azurestack", Times: 1, Hold: azuretest.BeforeActing})
	impatient, leave := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := c.Provider(impatient, sub); !errors.Is(err, context.Canceled) {
			t.Errorf("the one that left got %v", err)
		}
	})
	if err := s.Wait(t.Context(), "GET", "*/microsoft.azurestack", 1); err != nil {
		t.Fatal(err)
	}
	all.Go(func() {
		if state, err := c.Provider(t.Context(), sub); err != nil || state != azure.Registered {
			t.Errorf("the one that stayed got %q, %v", state, err)
		}
	})
	leave()
	all.Wait()
}

func TestMoveIsWaitedFor(t *testing.T) {
	setup := func(t *testing.T, level string) (*site, *azure.Client, azure.RegistrationID, azure.GroupID) {
		s := newSite(t, azuretest.WithMoves(azuretest.Moves{Polls: 3, RetryAfter: 20}), azuretest.WithGroup(azuretest.Group{Name: "target"}),
			azuretest.WithRegistration(azuretest.Registration{Name: "stamp", CloudID: "c1", LockLevel: level}))
		return s, s.connect(t), s.id(t, "azurestack", "stamp"), s.id(t, "target", "x").Group()
	}
	t.Run("done", func(t *testing.T) {
		s, c, id, target := setup(t, "")
		if err := c.ValidateMove(t.Context(), id, target); err != nil || s.total() != 80*time.Second {
			t.Errorf("%v after %s, want four polls of 20 s", err, s.total())
		}
		moved, err := c.Move(t.Context(), id, target)
		if err != nil || moved.String() != s.id(t, "target", "stamp").String() {
			t.Errorf("%s, %v", moved, err)
		}
		if _, there, err := c.Registration(t.Context(), moved); !there || err != nil {
			t.Errorf("not there: %v", err)
		}
		// Asked again, as after a lost answer, it is done already.
		if again, err := c.Move(t.Context(), id, target); err != nil || again != moved {
			t.Errorf("again: %s, %v", again, err)
		}
	})
	t.Run("locked", func(t *testing.T) {
		s, c, id, target := setup(t, "CanNotDelete")
		if err := c.ValidateMove(t.Context(), id, target); fault.KindOf(err) != fault.Permanent {
			t.Errorf("%v", err)
		}
		locks, err := c.Locks(t.Context(), id.Subscription())
		if err != nil || len(locks) != 1 || locks[0].Name != azure.LockName || locks[0].Level != "CanNotDelete" || !locks[0].On(id) || locks[0].On(s.id(t, "azurestack", "stamp2")) {
			t.Errorf("%+v, %v", locks, err)
		}
	})
	t.Run("told at the end", func(t *testing.T) {
		s, c, id, target := setup(t, "")
		s.Fail(azuretest.Fault{Method: "GET", Path: "*/operationresults/*", After: 1, Times: 1, Status: 409, Code: "ResourceMoveProviderValidationFailed"})
		if err := c.ValidateMove(t.Context(), id, target); fault.KindOf(err) != fault.Permanent {
			t.Errorf("%v", err)
		}
	})
	t.Run("the place to ask is elsewhere", func(t *testing.T) {
		s, c, id, target := setup(t, "")
		s.Fail(azuretest.Fault{Method: "POST", Path: "*/validateMoveResources", Times: 1, Status: 202, Header: map[string]string{"Location": "https://elsewhere.example/x"}})
		if err := c.ValidateMove(t.Context(), id, target); fault.KindOf(err) != fault.Refused {
			t.Errorf("%v", err)
		}
		s.Fail(azuretest.Fault{Method: "POST", Path: "*/validateMoveResources", Times: 1, Status: 202})
		if err := c.ValidateMove(t.Context(), id, target); fault.KindOf(err) != fault.Refused {
			t.Errorf("no place: %v", err)
		}
	})
	t.Run("never ends", func(t *testing.T) {
		s, c, id, target := setup(t, "")
		s.Fail(azuretest.Fault{Method: "GET", Path: "*/operationresults/*", Status: 202, Header: map[string]string{"Retry-After": "600"}})
		if err := c.ValidateMove(t.Context(), id, target); fault.KindOf(err) != fault.Unreachable || s.total() < 4*time.Hour || s.total() > 5*time.Hour {
			t.Errorf("%v after %s", err, s.total())
		}
	})
}
