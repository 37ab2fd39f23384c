package ledger_test

import (
	"path/filepath"
	"testing"

	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/ledger"
	"github.com/azs-courier/azs-courier/shared/ledger/ledgertest"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// folder is a state folder as a place of the suite.
type folder string

func (d folder) Create(role ledger.Role, c clock.Clock) (*ledger.Ledger, error) {
	return ledger.Create(string(d), role, c)
}

func (d folder) Open(role ledger.Role, c clock.Clock) (*ledger.Ledger, error) {
	return ledger.Open(string(d), role, c)
}

func (d folder) View(role ledger.Role, c clock.Clock) (*ledger.Ledger, error) {
	return ledger.View(string(d), role, c)
}

func (d folder) Check(role ledger.Role) (ledger.Report, error) { return ledger.Check(string(d), role) }

func (d folder) Trust() (trust.Store, bool) { return trust.At(string(d)), true }

func TestTheFolderKeepsThePromisesOfAStore(t *testing.T) {
	ledgertest.Run(t, false, func(tb testing.TB) ledgertest.Place { return folder(filepath.Join(tb.TempDir(), "home")) })
}
