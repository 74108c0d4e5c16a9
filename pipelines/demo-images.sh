#!/bin/sh
# Makes the images demo-api:VERSION and demo-web:VERSION for deploy-app.yaml, out of Debian's
# busybox-static alone: no registry is asked. Usage: demo-images.sh VERSION
set -eu
version=$1
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

mkdir -p "$root/bin" "$root/www/cgi-bin"
cp /bin/busybox "$root/bin/busybox"
for name in $(/bin/busybox --list); do
    [ -e "$root/bin/$name" ] || ln -s busybox "$root/bin/$name"
done
echo "$version" >"$root/www/version"

import() {
    tar -C "$root" -c bin www |
        docker import --change 'CMD ["httpd", "-f", "-p", "8080", "-h", "/www"]' - "$1"
}

import "demo-api:$version"
# The web server hands requests on to the container that its network knows as "api".
cat >"$root/www/cgi-bin/api" <<'SCRIPT'
#!/bin/sh
body=$(wget -q -O - http://api:8080/version) || { echo 'Status: 502 Bad Gateway'; echo; exit; }
printf 'Content-Type: text/plain\n\n%s\n' "$body"
SCRIPT
chmod +x "$root/www/cgi-bin/api"
import "demo-web:$version"
