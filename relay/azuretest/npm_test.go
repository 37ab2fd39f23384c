package azuretest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/azs-courier/azs-courier/relay/azuretest"
	"github.com/azs-courier/azs-courier/shared/official"
	"github.com/azs-courier/azs-courier/shared/official/officialtest"
)

// TestMicrosoftsClient lets Microsoft's own npm client judge the server: it
// must build, send and decode every call of a registration. It needs node and
// the packages of testdata/npm ("npm ci --prefix testdata/npm"); with
// AZS_REQUIRE_NPM=1 their absence is a failure.
func TestMicrosoftsClient(t *testing.T) {
	missing := t.Skipf
	if os.Getenv("AZS_REQUIRE_NPM") == "1" {
		missing = t.Fatalf
	}
	dir := filepath.Join(root(t), "testdata", "npm")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "@azure", "arm-azurestack")); err != nil {
		missing("Microsoft's npm client is not installed (npm ci --prefix testdata/npm): %v", err)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		missing("no node: %v", err)
	}
	srv := start(t, azuretest.WithGroup(azuretest.Group{Name: "azurestack"}),
		azuretest.WithRegistration(azuretest.Registration{Name: "older", CloudID: "older-cloud"}))
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, srv.CAPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node, filepath.Join(dir, "contract.js"))
	for _, v := range os.Environ() { // loopback needs no proxy
		if name, _, _ := strings.Cut(strings.ToLower(v), "="); !strings.HasSuffix(name, "_proxy") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "NODE_EXTRA_CA_CERTS="+ca, "ARM="+srv.URL, "AUTHORITY="+srv.Authority, "TENANT="+srv.Tenant, "SUBSCRIPTION="+srv.Subscription,
		"CLIENT_ID="+srv.ClientID, "CLIENT_SECRET="+srv.ClientSecret, "TOKEN="+token(1), "OTHER_TOKEN="+token(2))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var got map[string]struct {
		Status int
		Code   string
		Body   json.RawMessage
	}
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatalf("%v in %q", err, stdout.String())
	}
	type outcome struct {
		Status int
		Code   string
	}
	outcomes := map[string]outcome{}
	for name, o := range got {
		outcomes[name] = outcome{o.Status, o.Code}
	}
	want := map[string]outcome{
		"absent": {404, "ResourceNotFound"}, "created": {201, ""}, "updated": {200, ""}, "patched": {200, ""},
		"otherStamp": {400, "CloudIdUpdateNotAllowed"}, "sameStamp": {409, azuretest.CodeCloudIDRegistered},
		"malformed": {400, "InvalidRegistrationToken"}, "get": {200, ""}, "list": {200, ""}, "key": {200, ""},
		"noGroup": {404, "ResourceGroupNotFound"}, "deleted": {200, ""}, "deletedAgain": {204, ""},
	}
	if diff := cmp.Diff(want, outcomes); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}

	type resource struct{ ID, Name, Type, Location, Etag, ObjectID, CloudID, BillingModel string }
	var one resource
	if err := json.Unmarshal(got["get"].Body, &one); err != nil {
		t.Fatal(err)
	}
	if one.Etag == "" || one.ObjectID == "" {
		t.Errorf("the client decoded no etag or object id: %+v", one)
	}
	one.Etag, one.ObjectID = "", ""
	wantOne := resource{ID: "/subscriptions/" + srv.Subscription + "/resourceGroups/azurestack/providers/Microsoft.AzureStack/registrations/stamp",
		Name: "stamp", Type: "Microsoft.AzureStack/registrations", Location: "global", CloudID: officialtest.CloudID(1), BillingModel: "Capacity"}
	if diff := cmp.Diff(wantOne, one); diff != "" {
		t.Errorf("registration that the client decoded (-want +got):\n%s", diff)
	}
	var list []resource
	if err := json.Unmarshal(got["list"].Body, &list); err != nil || len(list) != 2 {
		t.Errorf("the client decoded a list of %d (%v), want 2", len(list), err)
	}
	var key struct{ ActivationKey string }
	if err := json.Unmarshal(got["key"].Body, &key); err != nil {
		t.Fatal(err)
	}
	read, err := official.ReadKey([]byte(key.ActivationKey))
	if err != nil {
		t.Fatal(err)
	}
	if read.Claims.RegistrationName != "stamp" || read.Claims.CloudID != officialtest.CloudID(1) {
		t.Errorf("key of registration %q, cloud id %q", read.Claims.RegistrationName, read.Claims.CloudID)
	}
}
