package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/console"
	"github.com/azs-courier/azs-courier/shared/fault"
)

func preflightVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "preflight", Usage: "check cloud, sign-in, subscription and rights before the day",
		Description: "Signs in and reads; nothing is changed. Says as whom, whether the subscription takes changes and of which kind it is, the state of " +
			"the provider, and compares what the identity may do in the resource group with the role of the verbs. What is missing is named, " +
			"and ends with exit code 9. Azure tells rights only for groups that exist: without the group that part is not checked, and said so.",
		Flags:  preflightFlags(),
		Action: appkit.Run(runPreflight),
	}, appkit.Help{
		Examples: []string{p.Name + " preflight --for register,unregister --subscription Production --group azurestack"},
		Exit:     azureFaults,
	})
}

func preflightFlags() []cli.Flag {
	return append([]cli.Flag{
		forFlag(),
		&cli.StringFlag{Name: "subscription", Usage: "`ID` or name of the subscription", EnvVars: []string{"AZS_SUBSCRIPTION"}},
		&cli.StringFlag{Name: "group", Value: "azurestack", Usage: "resource `GROUP` of the registrations"},
	}, azureFlags()...)
}

// checked is what a preflight found.
type checked struct {
	Cloud        string   `json:"cloud"`
	Endpoint     string   `json:"endpoint"`
	Name         string   `json:"name"`
	ObjectID     string   `json:"objectId"`
	Tenant       string   `json:"tenant"`
	Subscription offer    `json:"subscription"`
	Provider     string   `json:"provider"`
	Group        string   `json:"group"`
	GroupThere   bool     `json:"groupThere"`
	Verbs        []string `json:"for"`
	Held         []string `json:"held"`
	Missing      []string `json:"missing"`
	NotNeeded    []string `json:"notNeeded"`
	Unchecked    string   `json:"unchecked,omitempty"`
	Warnings     []string `json:"warnings"`
}

func runPreflight(ctx context.Context, e *appkit.Env, c *cli.Context) error {
	if _, err := appkit.Args(c); err != nil {
		return err
	}
	if c.String("subscription") == "" {
		return fault.New(fault.Usage, "preflight needs the --subscription").Hint("azs-relay subscriptions")
	}
	if _, err := azure.RoleFor(nil, verbsOf(c)...); err != nil {
		return err
	}
	client, err := connect(ctx, e, c)
	if err != nil {
		return err
	}
	found, err := examine(ctx, e, c, client)
	if err == nil || len(found.Missing) > 0 {
		e.Console.Result("preflight", found, found.print)
	}
	return err
}

// examine looks at what the verbs of --for will meet.
func examine(ctx context.Context, e *appkit.Env, c *cli.Context, client *azure.Client) (*checked, error) {
	verbs := verbsOf(c)
	found := &checked{Verbs: verbs, Held: []string{}, Missing: []string{}, NotNeeded: []string{}, Warnings: []string{}}
	if _, err := azure.RoleFor(nil, verbs...); err != nil {
		return found, err
	}
	who, err := client.WhoAmI(ctx)
	if err != nil {
		return found, err
	}
	found.Cloud, found.Endpoint, found.Name, found.ObjectID, found.Tenant = client.Cloud().Name, client.Cloud().Endpoint, nameOf(who), who.ObjectID, who.Tenant
	err = found.read(ctx, client, who, c.String("subscription"), c.String("group"))
	for _, w := range found.Warnings {
		e.Console.Warn("%s", w)
	}
	return found, err
}

// read makes the checks in the order in which register would meet them.
func (f *checked) read(ctx context.Context, client *azure.Client, who azure.Identity, subscription, group string) error {
	sub, err := client.Subscription(ctx, subscription)
	if err != nil {
		return err
	}
	f.Subscription = offer{sub.ID.String(), sub.Name, sub.State, sub.TenantID, sub.QuotaID, kindOfOffer(sub.QuotaID), foreign(who, sub)}
	if f.Subscription.Foreign {
		f.Warnings = append(f.Warnings, fmt.Sprintf("the identity is of tenant %s and the subscription of tenant %s, which must have delegated it", who.Tenant, sub.TenantID))
	}
	if sub.QuotaID != "" && !strings.HasPrefix(sub.QuotaID, "EnterpriseAgreement") {
		f.Warnings = append(f.Warnings, fmt.Sprintf("quota id %q is not that of an Enterprise Agreement, which the disconnected flow is for", sub.QuotaID))
	}
	if !sub.Enabled() {
		return fault.New(fault.Permanent, "subscription %s is %s and can only be read until its owner enables it again", sub.ID, sub.State).Hint("azs-relay subscriptions")
	}
	provider, err := client.Provider(ctx, sub.ID)
	if err != nil {
		return err
	}
	f.Provider = string(provider)
	g, err := sub.ID.Group(group)
	if err != nil {
		return err
	}
	f.Group = g.Name()
	if _, f.GroupThere, err = client.Group(ctx, g); err != nil {
		return err
	}
	rights, err := client.ReadRights(ctx, g, f.Verbs...)
	if err != nil {
		return err
	}
	f.Unchecked = rights.Unchecked
	if rights.Unchecked != "" {
		f.Warnings = append(f.Warnings, "the rights are not checked: "+rights.Unchecked)
	}
	// A provider that must be registered needs the right that is else spare.
	if provider != azure.Registered {
		if i := slices.Index(rights.Spare, registerProvider); i >= 0 {
			rights.Spare = slices.Delete(rights.Spare, i, i+1)
			rights.Missing = append(rights.Missing, registerProvider)
		}
	}
	f.Held, f.Missing, f.NotNeeded = append(f.Held, rights.Held...), append(f.Missing, rights.Missing...), append(f.NotNeeded, rights.Spare...)
	return rights.Lacking(g, f.Verbs...)
}

const registerProvider = "Microsoft.AzureStack/register/action"

func (f *checked) print(w io.Writer) {
	s := f.Subscription
	fmt.Fprintf(w, "cloud         %s, %s\nas            %s, object %s, tenant %s\n", f.Cloud, f.Endpoint, f.Name, f.ObjectID, f.Tenant)
	fmt.Fprintf(w, "subscription  %s (%q), %s, %s\n", s.ID, s.Name, console.Clean(s.State), s.Kind)
	fmt.Fprintf(w, "provider      Microsoft.AzureStack is %s\n", console.Clean(f.Provider))
	there := "exists"
	if !f.GroupThere {
		there = "does not exist and would be created"
	}
	fmt.Fprintf(w, "group         %q %s\n", f.Group, there)
	fmt.Fprintf(w, "rights        for %s: ", strings.Join(f.Verbs, ", "))
	if f.Unchecked != "" {
		fmt.Fprintf(w, "not checked, %s\n", f.Unchecked)
		return
	}
	fmt.Fprintf(w, "%d of %d needed\n", len(f.Held), len(f.Held)+len(f.Missing))
	for _, list := range []struct {
		mark    string
		actions []string
	}{{"held    ", f.Held}, {"MISSING ", f.Missing}, {"not needed now, and not held ", f.NotNeeded}} {
		for _, a := range list.actions {
			fmt.Fprintf(w, "  %s %s\n", list.mark, a)
		}
	}
}
