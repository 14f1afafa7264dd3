"""Programs that people really run: sshd, nginx and PostgreSQL from Debian, in one image.

Each has a starter in /usr/local/bin of the image, which is what a container is given as its command.
"""

from __future__ import annotations

from tests.lab.image import Image

DOWNLOAD_BYTES = 96 << 20

SERVE_SSH = """\
#!/bin/sh
# Lets the key in $KEY log in as root.
set -e
mkdir -p /run/sshd /root/.ssh
printf '%s\\n' "$KEY" > /root/.ssh/authorized_keys
chmod -R go-rwx /root/.ssh
exec /usr/sbin/sshd -D -e
"""

SERVE_HTTP = f"""\
#!/bin/sh
# Serves one large file of bytes that do not repeat.
set -e
mkdir -p /srv/http
head -c {DOWNLOAD_BYTES} /dev/urandom > /srv/http/file
exec nginx -c /etc/nginx/lab.conf
"""

NGINX = """\
daemon off;
user www-data;
worker_processes 2;
error_log stderr;
events { worker_connections 64; }
http {
    access_log off;
    sendfile on;
    server { listen 80; root /srv/http; }
}
"""

SERVE_SQL = """\
#!/bin/sh
# Makes a database in the volume /data when it is empty, and serves it to everybody.
set -e
cd /
bin=$(echo /usr/lib/postgresql/*/bin)
chown postgres: /data
if [ ! -e /data/PG_VERSION ]; then
    setpriv --reuid=postgres --regid=postgres --init-groups "$bin/initdb" -D /data --auth=trust >/dev/null
    echo 'host all all all trust' >> /data/pg_hba.conf
fi
exec setpriv --reuid=postgres --regid=postgres --init-groups \\
    "$bin/postgres" -D /data -c listen_addresses='*' -c unix_socket_directories=/tmp
"""

PROGRAMS = Image(
    name="localhost/lifeboat-programs:1",
    packages=("openssh-server", "nginx-light", "postgresql", "util-linux", "netbase"),
    command=("/usr/local/bin/serve-http",),
    files={
        "/usr/local/bin/serve-ssh": SERVE_SSH,
        "/usr/local/bin/serve-http": SERVE_HTTP,
        "/usr/local/bin/serve-sql": SERVE_SQL,
        "/etc/nginx/lab.conf": NGINX,
    },
    hooks=('rm -rf "$1"/var/lib/postgresql/*',),
)
