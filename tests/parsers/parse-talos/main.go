// parse-talos FILE applies a patch to the configuration of a Talos machine, as `talosctl gen config
// --config-patch` does, has Talos validate the whole, and prints what it then says of registries.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/siderolabs/talos/pkg/machinery/config/config"
	"github.com/siderolabs/talos/pkg/machinery/config/configpatcher"
	"github.com/siderolabs/talos/pkg/machinery/config/generate"
	"github.com/siderolabs/talos/pkg/machinery/config/machine"
	"github.com/siderolabs/talos/pkg/machinery/constants"
)

type endpoint struct {
	URL          string `json:"url"`
	OverridePath bool   `json:"overridePath"`
}

type mirror struct {
	Endpoints    []endpoint `json:"endpoints"`
	SkipFallback bool       `json:"skipFallback"`
}

type tls struct {
	CA                 string `json:"ca"`
	ClientIdentity     bool   `json:"clientIdentity"`
	InsecureSkipVerify bool   `json:"insecureSkipVerify"`
}

type auth struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identityToken"`
}

// Where the least is asked of the rest of the configuration.
type container struct{}

func (container) String() string        { return "container" }
func (container) RequiresInstall() bool { return false }
func (container) InContainer() bool     { return true }

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, strings.Join(strings.Fields(err.Error()), " "))
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
	patch, err := configpatcher.LoadPatch(content)
	if err != nil {
		return err
	}
	if _, merges := patch.(configpatcher.StrategicMergePatch); !merges {
		return errors.New("neither documents nor a part of one")
	}
	machines, err := generate.NewInput(
		"test", "https://192.0.2.1:6443", constants.DefaultKubernetesVersion,
	)
	if err != nil {
		return err
	}
	plain, err := machines.Config(machine.TypeWorker)
	if err != nil {
		return err
	}
	patched, err := configpatcher.Apply(
		configpatcher.WithConfig(plain), []configpatcher.Patch{patch},
	)
	if err != nil {
		return err
	}
	settings, err := patched.Config()
	if err != nil {
		return err
	}
	warnings, err := settings.Validate(container{})
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"mirrors":  each(settings.RegistryMirrorConfigs(), mirrorOf),
		"tls":      each(settings.RegistryTLSConfigs(), tlsOf),
		"auth":     each(settings.RegistryAuthConfigs(), authOf),
		"warnings": append([]string{}, warnings...),
		"unknown":  []string{},
	})
}

func each[From, To any](entries map[string]From, change func(From) To) map[string]To {
	changed := map[string]To{}
	for name, entry := range entries {
		changed[name] = change(entry)
	}
	return changed
}

func mirrorOf(from config.RegistryMirrorConfig) mirror {
	one := mirror{Endpoints: []endpoint{}, SkipFallback: from.SkipFallback()}
	for _, place := range from.Endpoints() {
		one.Endpoints = append(one.Endpoints, endpoint{place.Endpoint(), place.OverridePath()})
	}
	return one
}

func tlsOf(from config.RegistryTLSConfig) tls {
	return tls{string(from.CA()), from.ClientIdentity() != nil, from.InsecureSkipVerify()}
}

func authOf(from config.RegistryAuthConfig) auth {
	return auth{from.Username(), from.Password(), from.Auth(), from.IdentityToken()}
}
