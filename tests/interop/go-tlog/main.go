// Verifies a log's folder with the Go project's checksum-database packages, which the pool's authors did not write:
// sumdb/note opens the checkpoint, sumdb/tlog authenticates every tile and every entry against its root, and proves
// that an older checkpoint is a prefix.
//
//	go run . FOLDER VERIFICATION-KEY [OLDER-CHECKPOINT]
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

// folder serves tiles by the paths of C2SP tlog-tiles, which leave the height out.
type folder string

func (f folder) read(path string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(string(f), path))
	if os.IsNotExist(err) { // a partial tile may have made room for the full one
		data, err = os.ReadFile(filepath.Join(string(f), strings.Split(path, ".p/")[0]))
	}
	return data, err
}

func (f folder) Height() int { return height }

func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		data, err := f.read(strings.Replace(tile.Path(), "tile/8/", "tile/", 1))
		if err != nil {
			return nil, err
		}
		all = append(all, data[:tile.W*tlog.HashSize])
	}
	return all, nil
}

func (f folder) SaveTiles([]tlog.Tile, [][]byte) {}

// tree opens a checkpoint: origin, size, root.
func tree(text []byte, verifier note.Verifier) tlog.Tree {
	opened, err := note.Open(text, note.VerifierList(verifier))
	check(err)
	lines := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	root, err := tlog.ParseHash(lines[2])
	check(err)
	return tlog.Tree{N: size, Hash: root}
}

func main() {
	files := folder(os.Args[1])
	verifier, err := note.NewVerifier(os.Args[2])
	check(err)
	text, err := files.read("checkpoint")
	check(err)
	head := tree(text, verifier)
	reader := tlog.TileHashReader(head, files)
	root, err := tlog.TreeHash(head.N, reader)
	check(err)
	if root != head.Hash {
		check(fmt.Errorf("the tiles lead to another root than the checkpoint's"))
	}
	for first := int64(0); first < head.N; first += 1 << height {
		bundle := tlog.Tile{H: height, L: 0, N: first >> height, W: int(min(head.N-first, 1<<height))}
		data, err := files.read(strings.Replace(bundle.Path(), "tile/8/0/", "tile/entries/", 1))
		check(err)
		for k := int64(0); k < int64(bundle.W); k++ {
			size := binary.BigEndian.Uint16(data)
			proof, err := tlog.ProveRecord(head.N, first+k, reader)
			check(err)
			check(tlog.CheckRecord(proof, head.N, head.Hash, first+k, tlog.RecordHash(data[2:2+size])))
			data = data[2+size:]
		}
	}
	if len(os.Args) > 3 {
		text, err := os.ReadFile(os.Args[3])
		check(err)
		older := tree(text, verifier)
		proof, err := tlog.ProveTree(head.N, older.N, reader)
		check(err)
		check(tlog.CheckTree(proof, head.N, head.Hash, older.N, older.Hash))
	}
	fmt.Printf("%d entries\n", head.N)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
