package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
)

// Report is what a failed run says of its undo. Keys that are false, empty or null are left out.
type Report struct {
	Status string `json:"status"`
	Dirty  bool   `json:"dirty"`
	Undo   []struct {
		Path  string `json:"path"`
		State string `json:"state"`
	} `json:"undo"`
}

// reportOf waits for the end of a run. A run that did not fail has no report: nil.
func reportOf(ctx context.Context, connection client.Client, workflowID string) (*Report, error) {
	err := connection.GetWorkflow(ctx, workflowID, "").Get(ctx, nil)
	var failed *temporal.ApplicationError
	if !errors.As(err, &failed) {
		return nil, err
	}
	var report Report
	return &report, failed.Details(&report)
}

// printReport prints a report as JSON.
func printReport(connection client.Client, workflowID string) error {
	report, err := reportOf(context.Background(), connection, workflowID)
	if err != nil {
		return err
	}
	data, err := json.Marshal(report)
	fmt.Println(string(data))
	return err
}
