package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
)

const (
	parcels = "demo-parcels"
	most    = 10_000 // items in a parcel
	grams   = 500    // an item's weight
)

// Order is the step's `with`: one mapping, one struct.
type Order struct {
	Key   string `json:"key"`
	Order string `json:"order"`
	Items int    `json:"items"`
}

// Packed is the step's output.
type Packed struct {
	Parcel string   `json:"parcel"`
	Grams  int      `json:"grams"`
	Labels []string `json:"labels"`
}

// Progress is what the live view shows as a bar.
type Progress struct {
	Done  int    `json:"done"`
	Total int    `json:"total"`
	Unit  string `json:"unit"`
}

// Pack makes a parcel. Repeating it changes nothing: the key names the parcel.
func Pack(ctx context.Context, order Order) (Packed, error) {
	if order.Items > most {
		message := fmt.Sprintf("order %s has %d items, and a parcel holds %d", order.Order, order.Items, most)
		return Packed{}, temporal.NewNonRetryableApplicationError(message, "ParcelTooLarge", nil, map[string]int{"most": most})
	}
	for done := range order.Items {
		activity.RecordHeartbeat(ctx, Progress{Done: done, Total: order.Items, Unit: "items"})
		select {
		case <-ctx.Done():
			return Packed{}, ctx.Err() // as it is: the step counts as cancelled
		case <-time.After(20 * time.Millisecond):
		}
	}
	packed := Packed{Parcel: path(order.Key), Grams: grams * order.Items, Labels: []string{}} // nil would be null
	return packed, write(packed.Parcel, order)
}

// Key is the `with` of an undo.
type Key struct {
	Key string `json:"key"`
}

// Unpack undoes Pack, whether it has made a parcel or not. It has no result: the step's output is null.
func Unpack(_ context.Context, given Key) error {
	if err := os.Remove(path(given.Key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func path(key string) string {
	return filepath.Join(parcels, url.PathEscape(key)+".json")
}

// write makes a file whole or not at all.
func write(path string, content any) error {
	data, err := json.Marshal(content)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	draft, err := os.CreateTemp(filepath.Dir(path), ".draft-")
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name()) // gone already if all went well
	_, err = draft.Write(data)
	if err := errors.Join(err, draft.Close()); err != nil {
		return err
	}
	return os.Rename(draft.Name(), path)
}
