{{/* Values that become variables of the services. */}}

{{/* What people type. */}}
{{- define "mlhub.publicUrl" -}}
{{- $ingress := .Values.ingress -}}
{{- $https := .Values.proxy.https -}}
{{- if .Values.publicUrl -}}{{- trimSuffix "/" .Values.publicUrl -}}
{{- else if and $https.enabled $https.hosts -}}https://{{ first $https.hosts }}
{{- else if and $ingress.enabled $ingress.hosts -}}http{{ ternary "s" "" (not (empty $ingress.tls)) }}://{{ first $ingress.hosts }}
{{- else -}}http://127.0.0.1:8080
{{- end -}}
{{- end -}}

{{/* By what Service people's `ssh` comes in: port 22 of a load balancer is the same door, and so is the port that they type. */}}
{{- define "mlhub.sshPort" -}}
{{- $gateway := .Values.sshGateway -}}
{{- $type := ternary $gateway.service.type (include "mlhub.proxy.serviceType" .) (not (empty $gateway.host)) -}}
{{- if eq (toString $type) "LoadBalancer" -}}22
{{- else if and $gateway.host $gateway.service.nodePort -}}{{- $gateway.service.nodePort -}}
{{- else -}}{{- $url := urlParse (include "mlhub.publicUrl" .) -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- end -}}
{{- end -}}

{{/* Every service reads these and takes what is its own; as JSON, all of them text. */}}
{{- define "mlhub.settings" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $settings := dict
    "MLHUB_HUB_PUBLIC_URL" (include "mlhub.publicUrl" $root)
    "MLHUB_HUB_SSH_HOST" ($values.sshGateway.host | default (get (urlParse (include "mlhub.publicUrl" $root)) "hostname"))
    "MLHUB_HUB_SSH_PORT" (include "mlhub.sshPort" $root)
    "MLHUB_SPAWNER_WORKER_NAMESPACE" $values.workspaces.namespace
    "MLHUB_NATS_REPLICAS" $values.nats.replicas "MLHUB_NATS_USER" "mlhub" -}}
{{- $servers := list -}}
{{- range $number := until (int $values.nats.replicas) -}}{{- $servers = append $servers (printf "nats://nats-%d.nats:4222" $number) -}}{{- end -}}
{{- $_ := set $settings "MLHUB_NATS_URL" (ternary "nats://nats:4222" (join "," $servers) (eq (int $values.nats.replicas) 1)) -}}
{{- if not (or $values.profiles (include "mlhub.z2jh.used" $root)) -}}
  {{- /* Of the one profile that there is without any: what a workspace gets that asks for nothing, and may ask for. */ -}}
  {{- $_ := merge $settings (dict "MLHUB_DEFAULT_CPU" "1" "MLHUB_DEFAULT_MEM" "2G" "MLHUB_MAX_CPU" "4" "MLHUB_MAX_MEM" "8G") -}}
{{- end -}}
{{- $https := $values.proxy.https -}}
{{- if and $https.enabled (ne (toString $https.type) "offload") -}}{{- $_ := set $settings "MLHUB_PROXY_TLS" "true" -}}{{- end -}}
{{- if and $https.enabled (eq (toString $https.type) "letsencrypt") -}}
  {{- $_ := set $settings "MLHUB_PROXY_ACME_DOMAINS" (join "," $https.hosts) -}}
  {{- with $https.letsencrypt -}}
    {{- with .contactEmail -}}{{- $_ := set $settings "MLHUB_PROXY_ACME_EMAIL" . -}}{{- end -}}
    {{- with .acmeServer -}}{{- $_ := set $settings "MLHUB_PROXY_ACME_DIRECTORY" . -}}{{- end -}}
  {{- end -}}
{{- end -}}
{{- if kindIs "bool" $values.hub.allowNamedServers -}}
  {{- $_ := set $settings "MLHUB_HUB_WORKSPACES" (ternary "self-service" "one-each" $values.hub.allowNamedServers) -}}
{{- end -}}
{{- with dig "image" "pullPolicy" "" $values.singleuser -}}
  {{- $_ := set $settings "MLHUB_SPAWNER_WORKER_PULL" (get (dict "IfNotPresent" "missing" "Always" "always" "Never" "never") .) -}}
{{- end -}}
{{- if and $values.cull.enabled $values.cull.maxAge -}}
  {{- $days := printf "%.6f" (divf $values.cull.maxAge 86400) -}}
  {{- $_ := merge $settings (dict "MLHUB_DEFAULT_DAYS_TO_LIVE" $days "MLHUB_MAX_DAYS_TO_LIVE" $days) -}}
{{- end -}}
{{- if $values.debug.enabled -}}{{- $_ := set $settings "MLHUB_LOG_LEVEL" "debug" -}}{{- end -}}
{{- if include "mlhub.userConfig" . -}}{{- $_ := set $settings "MLHUB_HUB_USER_CONFIG" "/config/jupyterhub_user_config.py" -}}{{- end -}}
{{- range $name, $value := $values.settings | default dict -}}
  {{- if kindIs "invalid" $value -}}{{- $_ := unset $settings $name -}}{{- else -}}{{- $_ := set $settings $name (include "mlhub.text" $value) -}}{{- end -}}
{{- end -}}
{{- range $name, $value := $settings -}}{{- $_ := set $settings $name (toString $value) -}}{{- end -}}
{{- toJson $settings -}}
{{- end -}}

{{/* The file of profiles, as JSON. */}}
{{- define "mlhub.profiles" -}}
{{- $image := include "mlhub.image" (dict "root" .root "name" "mlhub-workspace") -}}
{{- $profiles := list (dict "name" "jupyterlab" "display_name" "JupyterLab" "description" "Python and JupyterLab."
    "image" $image "default_cpu" 1 "max_cpu" 4 "default_mem" "2G" "max_mem" "8G"
    "kubernetes" (dict "cpu_request" 0.1 "mem_request" "512M")) -}}
{{- if .root.Values.profiles -}}
  {{- if include "mlhub.z2jh.used" .root -}}
    {{- include "mlhub.problem" (dict "problems" .problems "text" "profiles and singleuser: give one of the two") -}}
  {{- end -}}
  {{- $profiles = .root.Values.profiles -}}
{{- else if include "mlhub.z2jh.used" .root -}}
  {{- $profiles = include "mlhub.z2jh.profiles" . | fromJsonArray -}}
{{- end -}}
{{- dict "profiles" $profiles | toJson -}}
{{- end -}}

{{/* The bus's own file; the logins, and the routes between several servers, lie beside it, from the Secret. */}}
{{- define "mlhub.nats" -}}
port: 4222
http_port: 8222
max_payload: 1048576
# What is acknowledged is on the disk.
jetstream { store_dir: {{ ternary "/data/cluster" "/data" (gt (int .root.Values.nats.replicas) 1) | quote }}, sync_interval: always }
include "auth.conf"
{{- if gt (int .root.Values.nats.replicas) 1 }}
cluster {
  name: mlhub
  port: 6222
  include "cluster.conf"
}
{{- end }}
{{ end -}}

{{/* What the hub's database is, for its checksum. */}}
{{- define "mlhub.database" -}}
{{- toJson .root.Values.hub.db -}}
{{- end -}}
