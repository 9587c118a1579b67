package controller

import (
	"slices"

	"lbctl/internal/nginx"
)

// stored is the current generation as it is on disk.
type stored struct {
	generation nginx.Generation
	files      map[string][]byte
	err        error // it can't be read
}

// readCurrent reads the current generation, beside the loop.
func readCurrent(server Server) stored {
	current, err := server.Current()
	return stored{current, filesOf(server, current.Number), err}
}

// filesOf is the files of a generation; nil when they can't be read, which the next check
// finds out too.
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

// adopt takes the current generation as it is on disk, after something failed.
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
