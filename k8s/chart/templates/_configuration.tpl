{{/* What the values say to the hub and the workers, and what is wrong with it. */}}

{{/* Whether zero-to-jupyterhub's `singleuser` says which workspaces there are: more than the defaults in values.yaml. */}}
{{- define "mlhub.z2jh.used" -}}
{{- $defaults := dict "cmd" "jupyterhub-singleuser" "uid" 1000 "startTimeout" 300 "memory" (dict "guarantee" "1G") -}}
{{- if ne (toJson $defaults) (toJson (omit .Values.singleuser "defaultUrl" "extraEnv")) -}}true{{- end -}}
{{- end -}}

{{/* What the file jupyterhub_user_config.py reads, as JSON; nothing if there is nothing to say. */}}
{{- define "mlhub.userConfig" -}}
{{- $hub := .root.Values.hub -}}
{{- $problems := .problems -}}
{{- $config := deepCopy ($hub.config | default dict) -}}
{{- range $name, $traits := $config -}}{{- if kindIs "invalid" $traits -}}{{- $config = omit $config $name -}}{{- end -}}{{- end -}}
{{- $jupyterhub := $config.JupyterHub | default dict -}}
{{- range $trait, $key := dict "redirect_to_server" "redirectToServer" "shutdown_on_logout" "shutdownOnLogout"
    "authenticate_prometheus" "authenticatePrometheus" "named_server_limit_per_user" "namedServerLimitPerUser"
    "template_vars" "templateVars" -}}
  {{- if not (kindIs "invalid" (get $hub $key)) -}}
    {{- if hasKey $hub $key -}}{{- $_ := set $jupyterhub $trait (get $hub $key) -}}{{- end -}}
  {{- end -}}
{{- end -}}
{{- with $jupyterhub -}}{{- $_ := set $config "JupyterHub" . -}}{{- end -}}
{{- range $trait := keys ($config.Spawner | default dict) | sortAlpha -}}
  {{- if not (has $trait (list "default_url" "environment" "disable_user_config" "notebook_dir")) -}}
    {{- include "mlhub.problem" (dict "problems" $problems "text" (printf "hub.config.Spawner.%s: the workers spawn; see `singleuser` or our own `profiles`" $trait)) -}}
  {{- end -}}
{{- end -}}
{{- with .root.Values.singleuser.defaultUrl -}}
  {{- $_ := set $config "Spawner" (merge (dict "default_url" .) ($config.Spawner | default dict)) -}}
{{- end -}}
{{- $environment := dict -}}
{{- range $name, $value := .root.Values.singleuser.extraEnv | default dict -}}
  {{- if kindIs "map" $value -}}
    {{- if hasKey $value "value" -}}{{- $_ := set $environment ($value.name | default $name) (include "mlhub.text" $value.value) -}}
    {{- else -}}
      {{- include "mlhub.problem" (dict "problems" $problems "text" (printf "singleuser.extraEnv.%s: only a plain value can be given; workspaces read no Secrets" $name)) -}}
    {{- end -}}
  {{- else if not (kindIs "invalid" $value) -}}
    {{- $_ := set $environment $name (include "mlhub.text" $value) -}}
  {{- end -}}
{{- end -}}
{{- $extra := dict -}}
{{- range $name, $code := $hub.extraConfig | default dict -}}
  {{- if $code -}}{{- $_ := set $extra $name $code -}}{{- end -}}
  {{- if contains "KubeSpawner" (toString $code) -}}
    {{- include "mlhub.problem" (dict "problems" $problems "text" (printf "hub.extraConfig.%s: names KubeSpawner, which is not here; see `singleuser` or our own `profiles`" $name)) -}}
  {{- end -}}
  {{- if regexMatch "(import|from) +z2jh" (toString $code) -}}
    {{- include "mlhub.problem" (dict "problems" $problems "text" (printf "hub.extraConfig.%s: imports z2jh, which is not here; write the value itself" $name)) -}}
  {{- end -}}
{{- end -}}
{{- if or $config $environment $extra -}}
  {{- dict "config" $config "environment" $environment "extraConfig" $extra | toJson -}}
{{- end -}}
{{- end -}}

{{/* Everything that these values ask for and that is not to be had here; nothing else is rendered then. */}}
{{- define "mlhub.validate" -}}
{{- $root := . -}}
{{- $problems := dict "texts" list -}}
{{- range $path, $refusal := .Files.Get "files/zero-to-jupyterhub.yaml" | fromYaml -}}
  {{- $value := (include "mlhub.at" (dict "in" $root.Values "path" $path) | fromJson).value -}}
  {{- $is_fine := or (kindIs "invalid" $value) (eq (toJson $value) `""`) -}}
  {{- range $refusal.fine -}}{{- if eq (toJson .) (toJson $value) -}}{{- $is_fine = true -}}{{- end -}}{{- end -}}
  {{- if not $is_fine -}}
    {{- include "mlhub.problem" (dict "problems" $problems "text" (printf "%s is not known here. Instead: %s" $path $refusal.instead)) -}}
  {{- end -}}
{{- end -}}
{{- $_ := include "mlhub.profiles" (dict "root" . "problems" $problems) -}}
{{- $_ := include "mlhub.userConfig" (dict "root" . "problems" $problems) -}}
{{- $template := regexFind `\{(unescaped_)?(user|pod|pvc|server)[a-z_]*\}` (toJson .Values.singleuser) -}}
{{- if $template -}}
  {{- include "mlhub.problem" (dict "problems" $problems "text" (printf "singleuser: contains %s, which only KubeSpawner fills in" $template)) -}}
{{- end -}}
{{- $known := .Files.Lines "files/settings.txt" -}}
{{- range $name := keys (.Values.settings | default dict) | sortAlpha -}}
  {{- if not (has $name $known) -}}
    {{- include "mlhub.problem" (dict "problems" $problems "text" (printf "settings.%s: no service has a setting of this name" $name)) -}}
  {{- end -}}
{{- end -}}
{{- include "mlhub.validate.podSecurity" (dict "root" . "problems" $problems) -}}
{{- include "mlhub.validate.rest" (dict "root" . "problems" $problems) -}}
{{- with $problems.texts -}}{{- fail (printf "\nThis chart can't do what these values say:\n- %s\n" (join "\n- " .)) -}}{{- end -}}
{{- end -}}

{{/* Profiles whose every start the cluster would refuse, by the level that this chart gives to the workspaces' namespace. */}}
{{- define "mlhub.validate.podSecurity" -}}
{{- $workspaces := .root.Values.workspaces -}}
{{- if and $workspaces.createNamespace (eq (toString $workspaces.podSecurity) "restricted") -}}
  {{- range $profile := (include "mlhub.profiles" (dict "root" .root "problems" (dict "texts" list)) | fromJson).profiles -}}
    {{- $cluster := $profile.kubernetes | default dict -}}
    {{- $refused := list -}}
    {{- range $profile.volumes -}}
      {{- if hasPrefix "nfs://" .source -}}
        {{- $refused = append $refused (printf "%s (a PersistentVolumeClaim on a PersistentVolume of NFS would be taken)" .source) -}}
      {{- end -}}
    {{- end -}}
    {{- if not (dig "run_as_non_root" true $cluster) -}}{{- $refused = append $refused "users that may be root" -}}{{- end -}}
    {{- if $profile.privilege_escalation -}}{{- $refused = append $refused "privilege_escalation" -}}{{- end -}}
    {{- range $profile.capabilities -}}
      {{- if ne (upper . | trimPrefix "CAP_") "NET_BIND_SERVICE" -}}{{- $refused = append $refused (printf "the capability %s" .) -}}{{- end -}}
    {{- end -}}
    {{- with $refused -}}
      {{- include "mlhub.problem" (dict "problems" $.problems "text" (printf "workspaces.podSecurity: must be baseline for the profile %s: restricted refuses %s" $profile.name (join ", " .))) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* Values that don't go together. */}}
{{- define "mlhub.validate.rest" -}}
{{- $values := .root.Values -}}
{{- $db := $values.hub.db -}}
{{- $https := $values.proxy.https -}}
{{- $type := ternary (toString $https.type) "" (default false $https.enabled) -}}
{{- $ssh := $values.sshGateway -}}
{{- $bus := lookup "apps/v1" "StatefulSet" .root.Release.Namespace "nats" -}}
{{- $servers := dig "spec" "replicas" $values.nats.replicas $bus -}}
{{- $manual := $https.manual | default dict -}}
{{- range $text, $is_wrong := dict
    "hub.db.type: sqlite-pvc or postgres" (not (has $db.type (list "sqlite-pvc" "postgres")))
    "hub.db.url: needs hub.db.type postgres" (and $db.url (ne $db.type "postgres"))
    "hub.image.name: our hub, or an image made from ours" (contains "k8s-hub" (toString $values.hub.image.name))
    "proxy.https.hosts: needed with proxy.https.enabled, as there is no publicUrl" (and $type (not $https.hosts) (not $values.publicUrl))
    "proxy.https.hosts: needed for a certificate of letsencrypt" (and (eq $type "letsencrypt") (not $https.hosts))
    "proxy.https.manual: needs key and cert" (and (eq $type "manual") (not (and $manual.key $manual.cert)))
    "proxy.https.secret.name: needed with proxy.https.type secret" (and (eq $type "secret") (not (dig "name" "" ($https.secret | default dict))))
    "workspaces.namespace: must be another one than that of the services, which nothing may enter or leave there"
      (eq $values.workspaces.namespace .root.Release.Namespace)
    "sshGateway.host: needed with an ingress, which passes no SSH: a name for the address of the Service ssh-gateway"
      (and $values.ingress.enabled $ssh.service.type (ne $ssh.service.type "ClusterIP") (not $ssh.host))
    (printf "nats.replicas: after a change from %d to %d, the bus begins empty; k8s/README.md tells how to take its contents along, nats.storeMayBeLost: true goes without" (int $servers) (int $values.nats.replicas))
      (and (ne (int $servers) (int $values.nats.replicas)) (not $values.nats.storeMayBeLost))
    "certManager.enabled: needs proxy.https.hosts" (and $values.certManager.enabled (not $https.hosts))
    "publicUrl: must begin with https:// where proxy.https is on" (and $type (hasPrefix "http://" (toString $values.publicUrl)))
    "cull.enabled: needs cull.maxAge; a workspace ends by its age, and nothing ends it for being idle"
      (and $values.cull.enabled (not $values.cull.maxAge)) -}}
  {{- if $is_wrong -}}{{- include "mlhub.problem" (dict "problems" $.problems "text" $text) -}}{{- end -}}
{{- end -}}
{{- end -}}
