package azure_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// Where a machine, a cluster, a pipeline or another tool signs in, the relay gets
// its token from them: each credential of --auth that the other tests do not have.
func TestCredentialsOfOthers(t *testing.T) {
	const assertion = "an assertion of the cluster"
	application := azuretest.Client{ID: "11111111-2222-4333-8444-0000000000aa", Secret: "a-client-secret", Federated: []string{assertion}}
	tests := map[string]func(t *testing.T, s *site){
		"azure-powershell": func(t *testing.T, s *site) {
			out, _ := json.Marshal(map[string]any{"Token": bearerOf(t, s), "ExpiresOn": time.Now().Add(time.Hour).Unix()})
			fakeTool(t, "pwsh", string(out), "", 0)
			s.options.ClientID = ""
		},
		"workload-identity": func(t *testing.T, s *site) {
			t.Setenv("AZURE_FEDERATED_TOKEN_FILE", write(t, "token", []byte(assertion)))
			s.options.ClientID = application.ID
		},
		"azure-pipelines": func(t *testing.T, s *site) {
			job := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodPost || r.Header.Get("Authorization") != "Bearer the job's token" || r.URL.Query().Get("serviceConnectionId") != "connection" {
					w.WriteHeader(http.StatusForbidden)
					return
				}
				fmt.Fprintf(w, `{"oidcToken":%q}`, assertion)
			}))
			t.Cleanup(job.Close)
			t.Setenv("SYSTEM_OIDCREQUESTURI", job.URL)
			t.Setenv("SYSTEM_ACCESSTOKEN", "the job's token")
			t.Setenv("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID", "connection")
			s.options.ClientID = application.ID
		},
		"managed-identity": func(t *testing.T, s *site) {
			bearer := bearerOf(t, s)
			machine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("X-IDENTITY-HEADER") != "of the machine" || r.URL.Query().Get("resource") == "" {
					w.WriteHeader(http.StatusForbidden)
					return
				}
				_, _ = io.WriteString(w, fmt.Sprintf(`{"access_token":%q,"expires_on":"%d","resource":"x","token_type":"Bearer"}`, bearer, time.Now().Add(time.Hour).Unix()))
			}))
			t.Cleanup(machine.Close)
			t.Setenv("IDENTITY_ENDPOINT", machine.URL)
			t.Setenv("IDENTITY_HEADER", "of the machine")
			s.options.Tenant, s.options.ClientID = "", ""
		},
	}
	for auth, prepare := range tests {
		t.Run(auth, func(t *testing.T) {
			for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "AZURE_FEDERATED_TOKEN_FILE"} {
				t.Setenv(name, "")
				os.Unsetenv(name)
			}
			s := newSite(t, azuretest.WithClient(application))
			s.options.Auth, s.options.ClientSecret = auth, secret.Text{}
			prepare(t, s)
			c := s.connect(t)
			if who, err := c.WhoAmI(t.Context()); err != nil || who.AppID != application.ID || who.Tenant != s.Tenant {
				t.Errorf("%+v, %v", who, err)
			}
			if _, err := c.Subscriptions(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
