package internal_test

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// Readers overlook a change of state in the initialiser of an if or a switch, so it must be a statement of its
// own. An initialiser may declare variables, or assign an error.
func TestInitialisersOnlyDeclare(t *testing.T) {
	for _, p := range project(t) {
		for _, f := range p.files {
			for n := range ast.Preorder(f.ast) {
				var init ast.Stmt
				switch n := n.(type) {
				case *ast.IfStmt:
					init = n.Init
				case *ast.SwitchStmt:
					init = n.Init
				}
				if init != nil && !declares(init) {
					t.Errorf("%s: this initialiser belongs on a line of its own", f.set.Position(init.Pos()))
				}
			}
		}
	}
}

// declares reports whether an initialiser declares variables or assigns an error.
func declares(init ast.Stmt) bool {
	s, ok := init.(*ast.AssignStmt)
	if !ok || s.Tok != token.DEFINE && s.Tok != token.ASSIGN {
		return false
	}
	name := ""
	switch last := s.Lhs[len(s.Lhs)-1].(type) {
	case *ast.Ident:
		name = last.Name
	case *ast.SelectorExpr:
		name = last.Sel.Name
	}
	return s.Tok == token.DEFINE || strings.HasSuffix(strings.ToLower(name), "err")
}
