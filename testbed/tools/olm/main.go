// bundle-verify runs operator-framework/api's validators on bundle folders, as `operator-sdk bundle validate` does with
// `--select-optional suite=operatorframework`, and the deprecated `name=operatorhub` and `name=community` that pipelines still ask for.
//
// One line a finding: "ERROR <validator> <text>" or "WARN <validator> <text>". Ends with 1 when there is an error.
// MultipleArchitecturesValidator is left out: it pulls the images with docker.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/operator-framework/api/pkg/manifests"
	"github.com/operator-framework/api/pkg/validation"
	interfaces "github.com/operator-framework/api/pkg/validation/interfaces"
)

type suite struct {
	name       string
	validators interfaces.Validators
}

var suites = []suite{
	{"default", validation.DefaultBundleValidators},
	{"object", interfaces.Validators{validation.ObjectValidator}},
	{"operatorhubv2", interfaces.Validators{validation.OperatorHubV2Validator}},
	{"capabilities", interfaces.Validators{validation.StandardCapabilitiesValidator}},
	{"categories", interfaces.Validators{validation.StandardCategoriesValidator}},
	{"good-practices", interfaces.Validators{validation.GoodPracticesValidator}},
	{"deprecated-apis", interfaces.Validators{validation.AlphaDeprecatedAPIsValidator}},
	{"operatorhub", interfaces.Validators{validation.OperatorHubValidator}},
	{"community", interfaces.Validators{validation.CommunityOperatorValidator}},
}

func main() {
	index := flag.String("index-path", "", "bundle.Dockerfile with the label com.redhat.openshift.versions")
	kubernetes := flag.String("k8s-version", "", "check against APIs removed in this version")
	flag.Parse()
	failed := false
	for _, folder := range flag.Args() {
		bundle, err := manifests.GetBundleFromDir(folder)
		if err != nil {
			fmt.Printf("ERROR load %v\n", err)
			failed = true
			continue
		}
		// Each validator picks what it knows: the bundle, its CSV, its CRDs, its other objects.
		input := []interface{}{map[string]string{"index-path": *index, "k8s-version": *kubernetes}}
		input = append(input, bundle.ObjectsToValidate()...)
		for _, suite := range suites {
			failed = report(suite, input) || failed
		}
	}
	if failed {
		os.Exit(1)
	}
}

func report(suite suite, input []interface{}) (failed bool) {
	for _, result := range suite.validators.Validate(input...) {
		for _, finding := range result.Errors {
			fmt.Printf("ERROR %s %s\n", suite.name, finding.Error())
			failed = true
		}
		for _, finding := range result.Warnings {
			fmt.Printf("WARN %s %s\n", suite.name, finding.Error())
		}
	}
	return failed
}
