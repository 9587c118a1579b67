package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"lbctl/examples/routing/shop/shoppb"
)

// call makes one call, and prints the answer.
func call(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("shop call", flag.ExitOnError)
	addr := flags.String("addr", "localhost:5000", "address of the load balancer")
	ca := flags.String("ca", "", "file with the certificate to trust; none means a call without TLS")
	flags.Func("H", "`\"name: value\"` to send as metadata, such as an API key; may be given several times", func(given string) error {
		name, value, ok := strings.Cut(given, ":")
		if !ok {
			return errors.New(`want "name: value"`)
		}
		ctx = metadata.AppendToOutgoingContext(ctx, strings.TrimSpace(name), strings.TrimSpace(value))
		return nil
	})
	_ = flags.Parse(args) // it ends the process on a mistake
	transport := insecure.NewCredentials()
	if *ca != "" {
		var err error
		if transport, err = credentials.NewClientTLSFromFile(*ca, ""); err != nil {
			return fmt.Errorf("-ca: %w", err)
		}
	}
	conn, err := grpc.NewClient(*addr, grpc.WithTransportCredentials(transport))
	if err != nil {
		return err
	}
	defer conn.Close()
	words := strings.Join(flags.Args()[:min(2, flags.NArg())], " ")
	item := &shoppb.Item{Name: flags.Arg(2)}
	switch words {
	case "cart add":
		return show(shoppb.NewCartClient(conn).Add(ctx, item))
	case "cart list":
		return show(shoppb.NewCartClient(conn).List(ctx, &shoppb.Nothing{}))
	case "stock count":
		return show(shoppb.NewStockClient(conn).Count(ctx, item))
	case "stock watch":
		stream, err := shoppb.NewStockClient(conn).Watch(ctx, item)
		for err == nil {
			var amount *shoppb.Amount
			if amount, err = stream.Recv(); err == nil {
				err = show(amount, nil)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	return errUsage
}

// show prints an answer in a line of its own.
func show(answer any, err error) error {
	if err != nil {
		return err
	}
	switch a := answer.(type) {
	case *shoppb.Contents:
		fmt.Fprintf(os.Stdout, "cart: %s (from %s)\n", strings.Join(a.Items, ", "), a.Server)
	case *shoppb.Amount:
		fmt.Fprintf(os.Stdout, "%d pieces (from %s)\n", a.Pieces, a.Server)
	}
	return nil
}
