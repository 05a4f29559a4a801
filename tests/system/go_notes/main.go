// Reads and writes notes, trees and proofs with golang.org/x/mod/sumdb, which is not ours.
//
//	book DIR BOOK-KEY INDEXES SIZES           checks a book, entries at indexes and consistency with sizes; prints JSON
//	verify PROOF ENTRY BOOK-KEY WITNESS-KEY   checks a tlog-proof with a cosignature; prints size and time
//	submit OLD NEW                            makes a book, and prints its key and a body for add-checkpoint
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// cosigner verifies cosignature/v1, which x/mod does not know.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
	time uint64
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.hash }
func (c *cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 72 {
		return false
	}
	c.time = binary.BigEndian.Uint64(sig)
	return ed25519.Verify(c.key, []byte(fmt.Sprintf("cosignature/v1\ntime %d\n%s", c.time, msg)), sig[8:])
}

func newCosigner(vkey string) (*cosigner, error) {
	parts := strings.SplitN(strings.TrimSpace(vkey), "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("malformed key")
	}
	id, err := hex.DecodeString(parts[1])
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 33 || key[0] != 4 {
		return nil, errors.New("not a key of a witness")
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	if !bytes.Equal(sum[:4], id) {
		return nil, errors.New("wrong key id")
	}
	return &cosigner{name: parts[0], hash: binary.BigEndian.Uint32(id), key: key[1:]}, nil
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func verify(proofPath, entryPath, bookKey, witnessKey string) {
	proof := string(must(os.ReadFile(proofPath)))
	entry := must(os.ReadFile(entryPath))
	book := must(note.NewVerifier(strings.TrimSpace(bookKey)))
	witness := must(newCosigner(witnessKey))
	head, checkpoint, _ := strings.Cut(proof, "\n\n")
	opened := must(note.Open([]byte(checkpoint), note.VerifierList(book, witness)))
	if len(opened.Sigs) != 2 {
		must(0, errors.New("not signed by both"))
	}
	lines := strings.Split(head, "\n")
	index := must(strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64))
	var path tlog.RecordProof
	for _, line := range lines[2:] {
		path = append(path, must(tlog.ParseHash(line)))
	}
	text := strings.Split(opened.Text, "\n")
	size := must(strconv.ParseInt(text[1], 10, 64))
	root := must(tlog.ParseHash(text[2]))
	if err := tlog.CheckRecord(path, size, root, index, tlog.RecordHash(entry)); err != nil {
		must(0, err)
	}
	fmt.Println(size, witness.time)
}

func submit(oldSize, newSize int64) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := make([]tlog.Hash, len(indexes))
		for at, index := range indexes {
			found[at] = stored[index]
		}
		return found, nil
	})
	for at := int64(0); at < newSize; at++ {
		stored = append(stored, must(tlog.StoredHashes(at, []byte(fmt.Sprint(at)), reader))...)
	}
	secret, public := func() (string, string) {
		s, p, err := note.GenerateKey(rand.Reader, "go.example/log")
		must(0, err)
		return s, p
	}()
	fmt.Println(public)
	for _, sizes := range [][2]int64{{0, oldSize}, {oldSize, newSize}} {
		body := fmt.Sprintf("old %d\n", sizes[0])
		if sizes[0] > 0 && sizes[0] < sizes[1] {
			for _, hash := range must(tlog.ProveTree(sizes[1], sizes[0], reader)) {
				body += hash.String() + "\n"
			}
		}
		root := must(tlog.TreeHash(sizes[1], reader))
		text := fmt.Sprintf("go.example/log\n%d\n%s\n", sizes[1], root)
		signed := must(note.Sign(&note.Note{Text: text}, must(note.NewSigner(secret))))
		fmt.Println(base64.StdEncoding.EncodeToString([]byte(body + "\n" + string(signed))))
	}
}

// folder reads the tiles of a book. The paths of sumdb name the height of tiles, ours do not: it is always 8.
type folder struct {
	path string
	read []string
}

func (f *folder) Height() int                         { return 8 }
func (f *folder) SaveTiles(_ []tlog.Tile, _ [][]byte) {}
func (f *folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range tiles {
		name := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		content, err := os.ReadFile(filepath.Join(f.path, name))
		if os.IsNotExist(err) && tile.W < 256 { // the full tile may have taken its place
			whole := tile
			whole.W = 256
			content, err = os.ReadFile(filepath.Join(f.path, strings.Replace(whole.Path(), "tile/8/", "tile/", 1)))
			content = content[:min(len(content), tile.W*tlog.HashSize)]
		}
		if err != nil {
			return nil, err
		}
		f.read = append(f.read, name)
		found = append(found, content)
	}
	return found, nil
}

// entry reads one entry of a bundle: each has its length before it, in two bytes.
func (f *folder) entry(index, size int64) []byte {
	tile := tlog.Tile{H: 8, L: 0, N: index / 256, W: 256}
	if size/256 == index/256 {
		tile.W = int(size % 256)
	}
	name := strings.Replace(tile.Path(), "tile/8/0/", "tile/entries/", 1)
	bundle := must(os.ReadFile(filepath.Join(f.path, name)))
	for skip := index % 256; skip > 0; skip-- {
		bundle = bundle[2+int(binary.BigEndian.Uint16(bundle)):]
	}
	return bundle[2:][:binary.BigEndian.Uint16(bundle)]
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

func numbers(list string) []int64 {
	var found []int64
	for _, each := range strings.Split(list, ",") {
		if each != "" {
			found = append(found, must(strconv.ParseInt(each, 10, 64)))
		}
	}
	return found
}

func hexes(hashes []tlog.Hash) []string {
	found := []string{}
	for _, hash := range hashes {
		found = append(found, hex.EncodeToString(hash[:]))
	}
	return found
}

func book(dir, bookKey, indexes, sizes string) {
	signed := must(os.ReadFile(filepath.Join(dir, "checkpoint")))
	verifier := must(note.NewVerifier(strings.TrimSpace(bookKey)))
	opened := must(note.Open(signed, note.VerifierList(verifier)))
	lines := strings.Split(opened.Text, "\n")
	if lines[0] != verifier.Name() {
		must(0, errors.New("the checkpoint is of another book"))
	}
	tree := tlog.Tree{N: must(strconv.ParseInt(lines[1], 10, 64)), Hash: must(tlog.ParseHash(lines[2]))}
	tiles := &folder{path: dir}
	told := struct {
		Size        int64
		Inclusion   map[string][]string
		Consistency map[string][]string
		Roots       map[string]string
		Tiles       []string
	}{tree.N, map[string][]string{}, map[string][]string{}, map[string]string{}, nil}
	if tree.N == 0 {
		if tree.Hash != sha256.Sum256(nil) { // TreeHash of this version gives zeros, and not RFC 6962 s2.1
			must(0, errors.New("another root of no entries"))
		}
	} else {
		reader := tlog.TileHashReader(tree, tiles) // checks every tile against the root
		for _, index := range numbers(indexes) {
			proof := must(tlog.ProveRecord(tree.N, index, reader))
			leaf := tlog.RecordHash(tiles.entry(index, tree.N))
			if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf); err != nil {
				must(0, err)
			}
			told.Inclusion[fmt.Sprint(index)] = hexes(proof)
		}
		for _, old := range numbers(sizes) {
			root := must(tlog.TreeHash(old, reader))
			proof := must(tlog.ProveTree(tree.N, old, reader))
			if err := tlog.CheckTree(proof, tree.N, tree.Hash, old, root); err != nil {
				must(0, err)
			}
			told.Consistency[fmt.Sprint(old)] = hexes(proof)
			told.Roots[fmt.Sprint(old)] = hex.EncodeToString(root[:])
		}
		for _, tile := range tlog.NewTiles(8, 0, tree.N) {
			told.Tiles = append(told.Tiles, strings.Replace(tile.Path(), "tile/8/", "tile/", 1))
		}
	}
	must(0, json.NewEncoder(os.Stdout).Encode(told))
}

func main() {
	switch {
	case len(os.Args) == 6 && os.Args[1] == "book":
		book(os.Args[2], os.Args[3], os.Args[4], os.Args[5])
	case len(os.Args) == 6 && os.Args[1] == "verify":
		verify(os.Args[2], os.Args[3], os.Args[4], os.Args[5])
	case len(os.Args) == 4 && os.Args[1] == "submit":
		submit(must(strconv.ParseInt(os.Args[2], 10, 64)), must(strconv.ParseInt(os.Args[3], 10, 64)))
	default:
		must(0, errors.New("book, verify or submit"))
	}
}
