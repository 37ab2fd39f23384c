package azuretest_test

import (
	"fmt"
	"net/url"

	"github.com/azs-courier/azs-courier/relay/azuretest"
)

// A client needs the CA, the authority and the endpoint, as with any cloud.
func Example() {
	srv := azuretest.NewServer(azuretest.WithGroup(azuretest.Group{Name: "azurestack"}))
	defer srv.Close()

	client := srv.Client()
	defer client.CloseIdleConnections()
	res, err := client.PostForm(srv.Authority+srv.Tenant+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "scope": {srv.Audience + "/.default"},
		"client_id": {srv.ClientID}, "client_secret": {srv.ClientSecret}})
	if err != nil {
		fmt.Println(err)
		return
	}
	res.Body.Close()
	fmt.Println(res.Status, srv.Count("POST", "*/oauth2/v2.0/token"))
	// Output: 200 OK 1
}

// The next lock is made, but the caller never hears of it.
func ExampleServer_Fail() {
	srv := azuretest.NewServer()
	defer srv.Close()
	srv.Fail(azuretest.Fault{Method: "PUT", Path: "*/locks/*", Times: 1, Drop: azuretest.AfterActing})
	srv.Fail(azuretest.Fault{Method: "GET", Path: "*/registrations/*", Code: "AuthorizationFailed"})
	srv.Fail(azuretest.Throttle("*", "/subscriptions/*", 17, 3))
	// Output:
}
