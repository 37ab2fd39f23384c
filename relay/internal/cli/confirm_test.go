package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/relay/internal/flow"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/console"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// Threat: --yes lets a script register wherever a display name happens to lead.
func TestYesNeedsAPinnedSubscription(t *testing.T) {
	const id = "8f3a2c41-5b6d-4e7f-9a0b-1c2d3e4f5a6b"
	for _, tt := range []struct {
		name, expect, subscription string
		yes                        bool
		kind                       fault.Kind
	}{
		{"nobody pins it", "", "Factory", true, fault.Usage},
		{"the request pins it", id, "Factory", true, 0},
		{"the command pins it", "", id, true, 0},
		{"nobody says yes and nobody can be asked", "", "Factory", false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, err bytes.Buffer
			r := &registering{
				env:   &appkit.Env{Yes: tt.yes, Console: console.New(strings.NewReader(""), &out, &err, console.Options{Program: "azs-relay"})},
				order: flow.Order{Subscription: tt.subscription},
			}
			got := r.confirm(&flow.Plan{Job: &flow.Job{Ask: &bundle.Request{ExpectSubscription: tt.expect}}})
			if fault.KindOf(got) != tt.kind {
				t.Errorf("kind %v, want %v: %v", fault.KindOf(got), tt.kind, got)
			}
		})
	}
}
