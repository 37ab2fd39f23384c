package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/azs-courier/azs-courier/shared/fault"
)

func TestExitCode(t *testing.T) {
	inner := fault.New(fault.Replay, "answer was used: %w", io.EOF).Hint("azs-agent next")
	tests := []struct {
		err  error
		code int
		hint string
	}{
		{nil, 0, ""},
		{errors.New("odd"), 1, ""},
		{inner, 5, "azs-agent next"},
		{fmt.Errorf("bundle 7Q: %w", inner), 5, "azs-agent next"},
		{fault.New(fault.Partial, "two of three: %w", inner), 13, "azs-agent next"},
		{fault.New(fault.Partial, "two of three: %w", inner).Hint("again"), 13, "again"},
		{fmt.Errorf("read: %w", context.Canceled), 130, ""},
		{fmt.Errorf("read: %w", context.DeadlineExceeded), 10, ""},
	}
	for _, tt := range tests {
		if got := fault.ExitCode(tt.err); got != tt.code {
			t.Errorf("ExitCode(%v) = %d, want %d", tt.err, got, tt.code)
		}
		if got := fault.HintOf(tt.err); got != tt.hint {
			t.Errorf("HintOf(%v) = %q, want %q", tt.err, got, tt.hint)
		}
	}
	if !errors.Is(inner, io.EOF) {
		t.Error("the cause is not in the chain")
	}
}
