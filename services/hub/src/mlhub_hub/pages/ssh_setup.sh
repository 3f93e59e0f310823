# It makes a key that stays on this computer, registers its public half with the hub, and tells OpenSSH of the
# workspace and of the hub's host key. It needs curl and OpenSSH, and changes nothing outside ~/.ssh.

fail() {
  printf 'mlhub: %s\n' "$1" >&2
  exit 1
}

make_key() {
  if [ ! -f "$key" ]; then
    comment="$(id -un 2>/dev/null || echo somebody)@$(uname -n)"
    ssh-keygen -q -t ed25519 -N '' -C "$comment" -f "$key" || fail "ssh-keygen could not make $key"
    printf 'Made the key %s; ssh-keygen -p -f %s gives it a passphrase.\n' "$key" "$key"
  elif [ ! -f "$key.pub" ]; then
    ssh-keygen -y -f "$key" > "$key.pub" || fail "the public half of $key can't be had"
  fi
}

register() {
  answer="$aliases/answer.$$"
  # By standard input: the list of processes shows the token to nobody.
  status=$(printf 'url = "%s"\n' "$url" | fetch -K - -o "$answer" -w '%{http_code}' \
    -H 'Content-Type: text/plain' --data-binary "@$key.pub") || status=''
  case $status in
    200 | 201) printf 'The hub knows this key now.\n' ;;
    '') fail "the hub could not be reached, or is not the one this was made for" ;;
    *)
      cat "$answer" >&2
      rm -f "$answer"
      fail "the hub has not taken the key"
      ;;
  esac
  rm -f "$answer"
}

write_alias() {
  printf '%s\n' "$alias_config" > "$aliases/$alias_name.conf"
  config="$folder/config"
  [ -e "$config" ] || : > "$config"
  # At the top: what stands further up wins, and what comes first in a file belongs to no other host.
  if ! grep -qxF "$include" "$config"; then
    cp "$config" "$config.before-mlhub"
    { printf '# Workspaces of ML Hub\n%s\n\n' "$include"; cat "$config.before-mlhub"; } > "$config"
    printf 'Added a line to %s; %s.before-mlhub is what it was.\n' "$config" "$config"
  fi
}

trust_host() {
  if [ -z "$known_host" ]; then
    printf 'The hub does not tell its host key: compare what ssh shows with what your administrator says.\n'
    return
  fi
  known="$folder/known_hosts"
  [ -e "$known" ] || : > "$known"
  if ! grep -qxF "$known_host" "$known"; then
    ssh-keygen -R "${known_host%% *}" -f "$known" > /dev/null 2>&1 || true
    [ -z "$(tail -c 1 "$known")" ] || echo >> "$known"
    printf '%s\n' "$known_host" >> "$known"
  fi
}

main() {
  : "${HOME:?is not set}"
  for tool in curl ssh-keygen; do
    command -v "$tool" > /dev/null || fail "$tool is needed, and not here"
  done
  umask 077
  folder="$HOME/.ssh"
  aliases="$folder/mlhub"
  key="$folder/$key_name"
  mkdir -p "$aliases" || fail "$aliases can't be made"
  make_key
  register
  write_alias
  trust_host
  printf '\nConnect with:  ssh %s\n' "$alias_name"
}

main
