package appkit

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/shared/bundle"
)

// The record is nine lines whatever the kiosk's list calls a sender.
func TestAdmissionQuotes(t *testing.T) {
	got := admission{
		Name: "azs-request-7q2mkx4r9d.azc", Size: 5321, Digest: "9f", Kind: bundle.KindRequest,
		Sender: "site\n\u202ea\x1b[2J", Key: "SHA256:key", Further: 1,
		Admitted: time.Date(2026, 11, 23, 6, 24, 0, 0, time.UTC),
	}.Text()
	want := `azs-courier-admission/v1
file: azs-request-7q2mkx4r9d.azc
size: 5321
sha256: 9f
manifest: ` + bundle.Digest{}.String() + `
kind: request
bundle: ` + bundle.ID{}.String() + `
sender: "site\n\u202ea\x1b[2J" key SHA256:key and 1 further
admitted: 2026-11-23T06:24:00Z by the clock of the kiosk
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
