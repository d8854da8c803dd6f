// parse-rke FILE reads a cluster.yml as RKE does, and prints its private registries and what RKE
// computes from them: the system images' names, where it logs in for them, and the kubelet's logins.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/rancher/rke/cluster"
	"github.com/rancher/rke/docker"
	"github.com/rancher/rke/types"
	"github.com/sirupsen/logrus"
	"gopkg.in/yaml.v2"
)

type registry struct {
	URL       string                     `json:"url"`
	User      string                     `json:"user"`
	Password  string                     `json:"password"`
	IsDefault bool                       `json:"is_default"`
	ECR       *types.ECRCredentialPlugin `json:"ecr"`
}

type image struct {
	Image    string         `json:"image"`
	Registry string         `json:"registry"`
	Login    map[string]any `json:"login"`
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
	logrus.SetOutput(io.Discard)
	content, err := os.ReadFile(words[0])
	if err != nil {
		return err
	}
	settings, err := cluster.ParseConfig(string(content))
	if err != nil {
		return err
	}
	registries := []registry{}
	for _, each := range settings.PrivateRegistries {
		ecr := each.ECRCredentialPlugin
		registries = append(
			registries, registry{each.URL, each.User, each.Password, each.IsDefault, ecr},
		)
	}
	unknown, err := unknownKeys(content)
	if err != nil {
		return err
	}
	images, logins, err := effects(*settings)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"private_registries": registries,
		"system_images":      images,
		"kubelet":            logins,
		"unknown":            unknown,
	})
}

// unknownKeys tells what RKE passes over.
func unknownKeys(content []byte) ([]string, error) {
	var broken *yaml.TypeError
	err := yaml.UnmarshalStrict(content, &types.RancherKubernetesEngineConfig{})
	if errors.As(err, &broken) {
		return broken.Errors, nil
	}
	return []string{}, err
}

// effects are some system images, and the config.json that RKE gives to kubelets.
func effects(settings types.RancherKubernetesEngineConfig) (map[string]image, any, error) {
	// A part of a cluster.yml has no nodes, without which RKE looks no further.
	if len(settings.Nodes) == 0 {
		settings.Nodes = []types.RKEConfigNode{{
			Address: "192.0.2.1", User: "nobody", Role: []string{"controlplane", "etcd", "worker"},
		}}
	}
	made, err := cluster.InitClusterObject(
		context.Background(), &settings, cluster.ExternalFlags{}, "",
	)
	if err != nil {
		return nil, nil, err
	}
	images := map[string]image{}
	for name, reference := range map[string]string{
		"alpine":              made.SystemImages.Alpine,
		"coredns":             made.SystemImages.CoreDNS,
		"kubernetes":          made.SystemImages.Kubernetes,
		"pod_infra_container": made.SystemImages.PodInfraContainer,
	} {
		encoded, from, err := docker.GetImageRegistryConfig(reference, made.PrivateRegistriesMap)
		if err != nil {
			return nil, nil, err
		}
		login, err := decoded(encoded)
		if err != nil {
			return nil, nil, err
		}
		images[name] = image{reference, from, login}
	}
	text, err := docker.GetKubeletDockerConfig(made.PrivateRegistriesMap)
	if err != nil {
		return nil, nil, err
	}
	return images, json.RawMessage(text), nil
}

func decoded(encoded string) (map[string]any, error) {
	if encoded == "" {
		return nil, nil
	}
	text, err := base64.URLEncoding.DecodeString(encoded)
	if err != nil {
		return nil, err
	}
	var login map[string]any
	return login, json.Unmarshal(text, &login)
}
