package lint

import (
	"bytes"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// module is the path in go.mod.
const module = "vps"

// file is one Go file of the project.
type file struct {
	name    string // relative to the module's root
	content []byte
	syntax  *ast.File
	pos     *token.FileSet
}

// dir is the file's folder, and thereby its package, relative to the module's root.
func (f *file) dir() string { return filepath.Dir(f.name) }

func (f *file) isTest() bool { return strings.HasSuffix(f.name, "_test.go") }

func (f *file) isGenerated() bool { return ast.IsGenerated(f.syntax) }

func (f *file) line(n ast.Node) int { return f.pos.Position(n.Pos()).Line }

// imports lists the import paths of the file.
func (f *file) imports() []string {
	var paths []string
	for _, spec := range f.syntax.Imports {
		paths = append(paths, strings.Trim(spec.Path.Value, `"`))
	}
	return paths
}

// uses lists the selectors pkg.Name in the file, where pkg is the package with that import path.
func (f *file) uses(importPath string) []*ast.SelectorExpr {
	name := ""
	for _, spec := range f.syntax.Imports {
		if strings.Trim(spec.Path.Value, `"`) == importPath {
			name = path.Base(importPath)
			if spec.Name != nil {
				name = spec.Name.Name
			}
		}
	}
	if name == "" {
		return nil
	}
	var found []*ast.SelectorExpr
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if id, ok := sel.X.(*ast.Ident); ok && id.Name == name {
				found = append(found, sel)
			}
		}
		return true
	})
	return found
}

var parseAll = sync.OnceValues(func() ([]*file, error) {
	root, err := findRoot()
	if err != nil {
		return nil, err
	}
	var files []*file
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			// What the go command does not see either, go help packages.
			if path != root && (name == "testdata" || name == "vendor" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		pos := token.NewFileSet()
		syntax, err := parser.ParseFile(pos, path, content, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		files = append(files, &file{rel, content, syntax, pos})
		return err
	})
	return files, err
})

// source returns all Go files of the project.
func source(t *testing.T) []*file {
	t.Helper()
	files, err := parseAll()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// findRoot is the folder above this one that has the go.mod.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(mod, []byte("module "+module+"\n")) {
			return dir, nil
		}
		if dir == "/" {
			return "", errors.New("no go.mod of module " + module + " above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}
