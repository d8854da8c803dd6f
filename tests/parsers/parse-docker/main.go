// parse-docker FILE reads a daemon.json as dockerd does, and prints what it says of registries.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/moby/moby/v2/daemon/config"
	"github.com/moby/moby/v2/daemon/pkg/registry"
	"github.com/sirupsen/logrus"
)

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
	if err := onlyKnownKeys(words[0]); err != nil {
		return err
	}
	defaults, err := config.New()
	if err != nil {
		return err
	}
	settings, err := config.MergeDaemonConfigurations(defaults, nil, words[0])
	if err != nil {
		return err
	}
	service, err := registry.NewService(settings.ServiceOptions)
	if err != nil {
		return err
	}
	effective := service.ServiceConfig()
	insecure, networks := []string{}, []string{}
	for name, index := range effective.IndexConfigs {
		if !index.Secure {
			insecure = append(insecure, name)
		}
	}
	for _, network := range effective.InsecureRegistryCIDRs {
		networks = append(networks, network.String())
	}
	slices.Sort(insecure)
	slices.Sort(networks)
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"registry-mirrors":    append([]string{}, settings.Mirrors...),
		"insecure-registries": append([]string{}, settings.InsecureRegistries...),
		"effective": map[string]any{
			"mirrors": effective.Mirrors, "insecure": insecure, "networks": networks,
		},
		"unknown": []string{},
	})
}

// onlyKnownKeys stands in for dockerd's own check, which asks its command line's flags.
func onlyKnownKeys(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	return decoder.Decode(&config.Config{})
}
