package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// server is what a client sends to: one of the programs below, on a port of
// this machine, with its data in the folder of the run.
type server struct {
	*process
	port int
	url  string
}

// processes returns the server's process, if it has one.
func (s *server) processes() []*process {
	if s.process == nil {
		return nil
	}
	return []*process{s.process}
}

// serve starts one of the servers. All that speak TLS have the same certificate
// and ask for one of the hosts.
func (l *lab) serve(ctx context.Context, kind string) (*server, error) {
	if kind == "" {
		return &server{}, nil
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	argv, err := l.command(kind, port)
	if err != nil {
		return nil, err
	}
	return l.start(ctx, kind, port, argv)
}

// start starts a server that listens on a port.
func (l *lab) start(ctx context.Context, name string, port int, argv []string) (*server, error) {
	p, err := l.spawn(l.run(name+".log"), argv...)
	if err != nil {
		return nil, err
	}
	s := &server{process: p, port: port, url: fmt.Sprintf("https://127.0.0.1:%d", port)}
	if err := p.listens(ctx, port); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), p.stop())
	}
	return s, nil
}

func (l *lab) command(kind string, port int) ([]string, error) {
	addr, data := fmt.Sprintf("127.0.0.1:%d", port), l.run("data")
	tls := []string{"--addr", addr, "--cert", l.path("pki", "server.crt"), "--key", l.path("pki", "server.key"), "--client-ca", l.path("pki", "hosts-ca.crt")}
	conf := l.run(kind + ".conf")
	switch kind {
	case "receiver":
		return []string{filepath.Join(l.bin, "receiver"), "--config", conf}, l.write(conf, receiverConf, addr, data)
	case "nginx":
		return []string{"nginx", "-c", conf}, l.write(conf, nginxConf, port, l.run())
	case "rsync":
		return []string{"rsync", "--daemon", "--no-detach", "--config", conf, "--port", fmt.Sprint(port), "--address", "127.0.0.1"}, l.write(conf, rsyncConf, data)
	case "webdav", "restic":
		return append([]string{"rclone", "serve", kind, data}, tls...), nil
	}
	return nil, fmt.Errorf("%s is no server", kind)
}

func (l *lab) write(path, form string, args ...any) error {
	return os.WriteFile(path, fmt.Appendf(nil, form, args...), 0o644)
}

// receiverConf has the defaults except for the lab's own paths and ports.
const receiverConf = `listen   = %q
data_dir = %q
[tls]
cert_file      = "../pki/server.crt"
key_file       = "../pki/server.key"
client_ca_file = "../pki/hosts-ca.crt"
crl_file       = "../pki/hosts.crl"
[admin]
listen = "127.0.0.1:0"
`

// nginxConf is the plainest DAV server that asks for certificates. Its folder for bodies is on
// the file system of the data, so that it can rename.
const nginxConf = `daemon off;
user root;
worker_processes auto;
pid %[2]s/nginx.pid;
error_log %[2]s/nginx-error.log;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path %[2]s/tmp;
  client_max_body_size 0;
  server {
    listen 127.0.0.1:%[1]d ssl;
    ssl_certificate ../pki/server.crt;
    ssl_certificate_key ../pki/server.key;
    ssl_client_certificate ../pki/hosts-ca.crt;
    ssl_verify_client on;
    ssl_protocols TLSv1.3;
    keepalive_requests 1000000;
    root %[2]s/data;
    location / {
      dav_methods PUT;
      create_full_put_path on;
    }
  }
}
`

const rsyncConf = `use chroot = no
uid = root
gid = root
[data]
path = %s
read only = no
`

// shipperConf has the defaults except for the host's own paths and ports.
const shipperConf = `host_id      = %[1]q
episodes_dir = %[2]q
outbox_dir   = %[3]q
shipped_dir  = %[4]q
settle       = "0s"
[receiver]
url       = %[5]q
ca_file   = "%[6]s/ca.crt"
cert_file = "%[6]s/%[1]s.crt"
key_file  = "%[6]s/%[1]s.key"
[admin]
listen = "127.0.0.1:0"
`
