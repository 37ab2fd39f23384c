package pgstate

import (
	"strings"
	"testing"

	"github.com/azs-courier/azs-courier/shared/fault"
)

func TestAddresses(t *testing.T) {
	for _, name := range []string{"PGSSLMODE", "PGHOST", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGSERVICE"} {
		t.Setenv(name, "")
	}
	for _, tt := range []struct {
		url, name, warning string
		tls                bool
	}{
		{"postgres://azs@db.example.org/fleet", `database "fleet" on db.example.org`, "", true},
		{"postgresql://azs@db.example.org:6000/fleet?sslmode=verify-full", `database "fleet" on db.example.org`, "", true},
		{"postgres://azs@db.example.org/fleet?sslmode=require", `database "fleet" on db.example.org`, "sslmode=require", true},
		{"postgres://azs@db.example.org/fleet?sslmode=disable", `database "fleet" on db.example.org`, "sslmode=disable", false},
		{"postgres://azs@localhost,db.example.org/fleet", `database "fleet" on localhost`, "", true},
		{"postgres://azs@127.0.0.1/fleet?sslmode=disable", `database "fleet" on 127.0.0.1`, "", false},
		{"postgres://azs@/fleet?host=/run/postgresql", `database "fleet" on /run/postgresql`, "", false},
	} {
		a, err := ParseURL(tt.url)
		must(t, err)
		if a.name != tt.name || (a.config.TLSConfig != nil) != tt.tls || (a.Warning == "") != (tt.warning == "") || !strings.Contains(a.Warning, tt.warning) {
			t.Errorf("%s: %s, TLS %v, warning %q", tt.url, a.name, a.config.TLSConfig != nil, a.Warning)
		}
		if strings.Contains(tt.url, "db.example.org") && tt.warning == "" {
			for _, f := range a.config.Fallbacks {
				if f.TLSConfig == nil {
					t.Errorf("%s: falls back to %s without TLS", tt.url, f.Host)
				}
			}
			if a.config.TLSConfig.InsecureSkipVerify {
				t.Errorf("%s: the certificate is not verified", tt.url)
			}
		}
	}
}

// No error repeats what could be a password.
func TestAddressesThatAreRefused(t *testing.T) {
	for _, tt := range []struct{ url, want string }{
		{"postgres://azs:CANARY@db.example.org/fleet", "holds a password"},
		{"postgres://azs:@db.example.org/fleet", "holds a password"},
		{"postgres://azs@db.example.org/fleet?password=CANARY", "holds a password"},
		{"postgres://azs@db.example.org/fleet?sslpassword=CANARY", "holds a password"},
		{"host=db.example.org password=CANARY", "cannot be used"},
		{"mysql://azs:CANARY@db.example.org", "cannot be used"},
		{"postgres:CANARY", "cannot be used"},
		{"postgres://azs:CAN%ARY@db.example.org/%zz", "cannot be used"},
		{"", "cannot be used"},
		{"postgres://azs@db.example.org/fleet?sslmode=CANARY-mode", "cannot be used"},
	} {
		_, err := ParseURL(tt.url)
		wantKind(t, err, fault.Usage, tt.want)
		if strings.Contains(err.Error(), "CANARY") && !strings.Contains(tt.url, "CANARY-mode") {
			t.Errorf("the error holds the password: %v", err)
		}
	}
	_, err := ParseSecret("postgres://azs:CANARY@db.example.org/fleet?sslmode=CANARY")
	wantKind(t, err, fault.Usage)
	if strings.Contains(err.Error(), "CANARY") {
		t.Errorf("the error holds the password: %v", err)
	}
}
