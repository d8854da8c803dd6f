// parse-kind FILE reads the configuration of a kind cluster, as strictly as kind does.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/pelletier/go-toml"
	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
)

type mount struct {
	Host      string `json:"hostPath"`
	Container string `json:"containerPath"`
	ReadOnly  bool   `json:"readOnly"`
}

type node struct {
	Role   string  `json:"role"`
	Image  string  `json:"image"`
	Mounts []mount `json:"extraMounts"`
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
	content, err := os.ReadFile(words[0])
	if err != nil {
		return err
	}
	cluster := &v1alpha4.Cluster{}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(cluster); err != nil {
		return err
	}
	// kind's loader, which is internal to it, looks at these first.
	if cluster.APIVersion != "kind.x-k8s.io/v1alpha4" || cluster.Kind != "Cluster" {
		return fmt.Errorf("unknown kind %s of %s", cluster.Kind, cluster.APIVersion)
	}
	v1alpha4.SetDefaultsCluster(cluster)
	patches, err := tables(cluster.ContainerdConfigPatches)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"name":                    cluster.Name,
		"nodes":                   nodes(cluster.Nodes),
		"containerdConfigPatches": patches,
		"unknown":                 []string{},
	})
}

// tables are the patches as kind reads them to merge them with containerd's config.toml.
func tables(patches []string) ([]map[string]any, error) {
	read := []map[string]any{}
	for _, patch := range patches {
		tree, err := toml.Load(patch)
		if err != nil {
			return nil, err
		}
		read = append(read, tree.ToMap())
	}
	return read, nil
}

func nodes(of []v1alpha4.Node) []node {
	all := []node{}
	for _, each := range of {
		one := node{Role: string(each.Role), Image: each.Image, Mounts: []mount{}}
		for _, m := range each.ExtraMounts {
			one.Mounts = append(one.Mounts, mount{m.HostPath, m.ContainerPath, m.Readonly})
		}
		all = append(all, one)
	}
	return all
}
