// Serves the activities, and no workflows, on a task queue of its own. With the arguments "report ID" it prints the
// report of a run instead.
package main

import (
	"cmp"
	"fmt"
	"log"
	"os"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
)

func main() {
	connection, err := client.Dial(client.Options{
		HostPort:  cmp.Or(os.Getenv("TEMPORAL_ADDRESS"), "localhost:7233"),
		Namespace: cmp.Or(os.Getenv("TEMPORAL_NAMESPACE"), "default"),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()

	if len(os.Args) == 3 && os.Args[1] == "report" {
		if err := printReport(connection, os.Args[2]); err != nil {
			log.Fatal(err)
		}
		return
	}
	queue := cmp.Or(os.Getenv("TASK_QUEUE"), "parcels-go")
	serving := worker.New(connection, queue, worker.Options{
		DisableWorkflowWorker:        true,
		MaxHeartbeatThrottleInterval: time.Second, // a cancellation comes with the answer to a heartbeat
	})
	serving.RegisterActivityWithOptions(Pack, activity.RegisterOptions{Name: "parcel.pack"})
	serving.RegisterActivityWithOptions(Unpack, activity.RegisterOptions{Name: "parcel.unpack"})
	if err := serving.Start(); err != nil {
		log.Fatal(err)
	}
	fmt.Fprintf(os.Stderr, "serving the task queue %s\n", queue)
	<-worker.InterruptCh() // SIGINT or SIGTERM
	serving.Stop()
}
