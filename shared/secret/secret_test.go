package secret_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/shared/secret"
)

// A secret stays hidden in every way in which Go prints a value (threat:
// secrets in argv, logs, panics).
func TestTextIsNeverPrinted(t *testing.T) {
	const canary = "canary-7Q2MKX4R"
	holder := struct {
		Password secret.Text
		Nested   []secret.Text
	}{secret.New(canary), []secret.Text{secret.New(canary)}}

	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", holder.Password, "holder", holder)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", holder.Password, "holder", holder)
	js, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	x, err := xml.Marshal(holder.Password)
	if err != nil {
		t.Fatal(err)
	}
	outputs := []string{log.String(), string(js), string(x), errors.New(fmt.Sprint(holder)).Error()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%10.3s", "%T"} {
		outputs = append(outputs, fmt.Sprintf(verb, holder), fmt.Sprintf(verb, holder.Password), fmt.Sprintf(verb, &holder))
	}
	for _, out := range outputs {
		if strings.Contains(out, canary) || strings.Contains(out, fmt.Sprintf("%x", canary)) {
			t.Errorf("secret shows in %q", out)
		}
	}
	if got := holder.Password.Reveal(); got != canary {
		t.Errorf("Reveal() = %q, want the value", got)
	}
}
