package cli

import (
	"context"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/azs-courier/azs-courier/relay/internal/azure"
	"github.com/azs-courier/azs-courier/shared/appkit"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// forFlag names the verbs that a role or a check is for.
func forFlag() cli.Flag {
	return &cli.StringFlag{Name: "for", Value: "register", Usage: "`VERBS` to allow, with commas: " + strings.Join(azure.RoleVerbs, ", ")}
}

func verbsOf(c *cli.Context) []string {
	var verbs []string
	for _, v := range strings.Split(c.String("for"), ",") {
		if v = strings.TrimSpace(v); v != "" {
			verbs = append(verbs, v)
		}
	}
	return verbs
}

func roleVerb(p appkit.Program) *cli.Command {
	return appkit.Describe(&cli.Command{
		Name: "role", Usage: "print the least role that some verbs need in Azure",
		Description: "Prints a custom role as 'az role definition create --role-definition' and New-AzRoleDefinition take it. It grants no right to " +
			"grant rights, and nothing in Entra is needed. Nothing is asked of Azure. Assign it at the subscription: a role that is assigned " +
			"to the group alone does not reach the calls on the subscription.",
		Flags: []cli.Flag{
			forFlag(),
			&cli.StringFlag{Name: "subscription", Usage: "`ID` of the subscription in which it can be assigned (default: a word to replace)", EnvVars: []string{"AZS_SUBSCRIPTION"}},
			&cli.StringFlag{Name: "group", Usage: "resource `GROUP` in which it can be assigned, instead of the whole subscription"},
		},
		Action: appkit.Run(runRole),
	}, appkit.Help{
		Examples: []string{
			p.Name + " role --for register,unregister,move --subscription 11111111-2222-3333-4444-555555555555",
			"# az role definition create --role-definition role.json",
			"# az role assignment create --assignee OBJECT-ID --role 'azs-relay register' --scope /subscriptions/SUBSCRIPTION",
		},
	})
}

func runRole(_ context.Context, e *appkit.Env, c *cli.Context) error {
	if _, err := appkit.Args(c); err != nil {
		return err
	}
	var scope azure.Scope
	if s := c.String("subscription"); s != "" {
		sub, err := azure.ParseSubscriptionID(s)
		if err != nil {
			return fault.New(fault.Usage, "--subscription %q: a role is assignable by the subscription's id, not by its name", s).Hint("azs-relay subscriptions")
		}
		scope = sub
		if g := c.String("group"); g != "" {
			if scope, err = sub.Group(g); err != nil {
				return err
			}
		}
	} else if c.String("group") != "" {
		return fault.New(fault.Usage, "--group needs the --subscription that holds it").Hint("azs-relay role --subscription SUBSCRIPTION --group %s", c.String("group"))
	}
	role, err := azure.RoleFor(scope, verbsOf(c)...)
	if err != nil {
		return err
	}
	e.Console.Result("role", role, func(w io.Writer) { _, _ = w.Write(role.JSON()) })
	return nil
}
