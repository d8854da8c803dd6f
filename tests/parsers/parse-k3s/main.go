// parse-k3s reads a registries.yaml as K3s and RKE2 do, with Rancher's wharfie.
//
//	parse-k3s FILE                                      what wharfie makes of the file
//	parse-k3s --hosts DIR [--no-default-endpoint] FILE  what K3s then gives to containerd
//	parse-k3s --pull REFERENCE FILE                     pull an image through it
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/rancher/wharfie/pkg/registries"
	"github.com/sirupsen/logrus"
	"gopkg.in/yaml.v2"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

func run(words []string) error {
	logrus.SetLevel(logrus.ErrorLevel)
	flags := flag.NewFlagSet("parse-k3s", flag.ContinueOnError)
	hosts := flags.String("hosts", "", "write a hosts.toml for each registry below this directory")
	strict := flags.Bool("no-default-endpoint", false, "as --disable-default-registry-endpoint")
	image := flags.String("pull", "", "pull this image")
	if err := flags.Parse(words); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("one file is needed")
	}
	path := flags.Arg(0)
	unknown, err := unknownKeys(path)
	if err != nil {
		return err
	}
	private, err := registries.GetPrivateRegistries(path)
	if err != nil {
		return err
	}
	switch {
	case *image != "":
		// Credentials come from the file alone, not from this user's own logins.
		private.DefaultKeychain = nobody{}
		return pull(private, *image)
	case *hosts != "":
		return layOut(private.Registry, *hosts, !*strict, unknown)
	}
	return show(struct {
		*registries.Registry
		Unknown []string `json:"unknown"`
	}{private.Registry, unknown})
}

// unknownKeys tells what wharfie passes over; a file that is not there, too, it takes for empty.
func unknownKeys(path string) ([]string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var broken *yaml.TypeError
	err = yaml.UnmarshalStrict(content, &registries.Registry{})
	if errors.As(err, &broken) {
		return broken.Errors, nil
	}
	return []string{}, err
}

func show(value any) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return err
	}
	_, err := os.Stdout.Write(text.Bytes())
	return err
}
