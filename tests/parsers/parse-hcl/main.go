// parse-hcl FILE prints the private_registries blocks of a Terraform file, read with HashiCorp's
// own parser. Nothing is known but what the file says: a variable in it is an error.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// What the provider's schema of rke_cluster has (docs/resources/cluster.md there).
type registry struct {
	URL       string  `hcl:"url" json:"url"`
	User      *string `hcl:"user,optional" json:"user"`
	Password  *string `hcl:"password,optional" json:"password"`
	IsDefault bool    `hcl:"is_default,optional" json:"is_default"`
	ECR       *ecr    `hcl:"ecr_credential_plugin,block" json:"ecr"`
	In        string  `json:"in"`
}

type ecr struct {
	AccessKey *string `hcl:"aws_access_key_id,optional" json:"aws_access_key_id"`
	SecretKey *string `hcl:"aws_secret_access_key,optional" json:"aws_secret_access_key"`
	Token     *string `hcl:"aws_session_token,optional" json:"aws_session_token"`
}

// The blocks that Terraform knows at the top of a file.
var roots = strings.Fields("terraform provider variable locals output module resource data " +
	"ephemeral check moved import removed")

type found struct {
	Registries []registry `json:"private_registries"`
	Unknown    []string   `json:"unknown"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

func run(words []string) error {
	if len(words) != 1 {
		return errors.New("one file is needed")
	}
	file, problems := hclparse.NewParser().ParseHCLFile(words[0])
	if problems.HasErrors() {
		return problems
	}
	body, written := file.Body.(*hclsyntax.Body)
	if !written {
		return errors.New("not the native syntax of HCL")
	}
	all := found{Registries: []registry{}, Unknown: []string{}}
	all.Unknown = append(all.Unknown, slices.Sorted(maps.Keys(body.Attributes))...)
	for _, block := range body.Blocks {
		if block.Type != "private_registries" && !slices.Contains(roots, block.Type) {
			all.Unknown = append(all.Unknown, block.Type)
		}
	}
	if problems := all.walk(body, nil); problems.HasErrors() {
		return problems
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

func (all *found) walk(body *hclsyntax.Body, path []string) hcl.Diagnostics {
	for _, block := range body.Blocks {
		if block.Type != "private_registries" {
			inner := append(append(append([]string{}, path...), block.Type), block.Labels...)
			if problems := all.walk(block.Body, inner); problems.HasErrors() {
				return problems
			}
			continue
		}
		one := registry{In: strings.Join(path, ".")}
		if problems := gohcl.DecodeBody(block.Body, &hcl.EvalContext{}, &one); problems.HasErrors() {
			return problems
		}
		all.Registries = append(all.Registries, one)
	}
	return nil
}
