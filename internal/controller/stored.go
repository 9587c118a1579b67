package controller

import (
	"slices"

	"lbctl/internal/nginx"
)

// stored is the current generation as it is on disk.
type stored struct {
	generation nginx.Generation
	files      map[string][]byte
	err        error // why the generation can't be read
}

// readCurrent reads the current generation. Call it outside the loop's goroutine.
func readCurrent(server Server) stored {
	current, err := server.Current()
	return stored{current, filesOf(server, current.Number), err}
}

// filesOf returns the files of a generation, or nil if they can't be read; the next check
// then finds that out too.
func filesOf(server Server, number int) map[string][]byte {
	if number == 0 {
		return nil
	}
	files, err := server.Files(number)
	if err != nil {
		return nil
	}
	return files
}

// adopt makes the generation on disk the current one, after a failure.
func (l *loop) adopt(s stored) {
	if s.err != nil {
		l.opts.Logger.Error("current generation is unknown", "error", s.err)
		return
	}
	if s.generation.Number != l.current.Number {
		l.become(s.generation, s.files, nil)
	}
}

// findGeneration looks for a generation on disk.
func findGeneration(server Server, number int) (nginx.Generation, bool) {
	all, err := server.Generations()
	if err != nil {
		return nginx.Generation{}, false
	}
	n := slices.IndexFunc(all, func(g nginx.Generation) bool { return g.Number == number })
	if n < 0 {
		return nginx.Generation{}, false
	}
	return all[n], true
}
