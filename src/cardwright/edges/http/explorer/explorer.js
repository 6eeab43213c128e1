// API explorer: shows the operations of /openapi.json, and sends requests to the server of the page.

const $ = (id) => document.getElementById(id);
// Placeholders of the examples. The page replaces them by its own address and by values of earlier answers.
const HERE = 'http://127.0.0.1:8181', PURCHASE = 'token-of-the-purchase', NUMBER = '19000000000000';
const TOKEN = /"(?:\\.|[^"\\])*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|[{}[\],:]/g;

const remembered = new Map(); // Tokens of answers, by the operation and parameter that accept them.
const drafts = new Map(); // Unsent input of forms, by operation.
let api, operations;

function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== undefined && value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== ''));
  return element;
}

const resolve = (item) => (item?.$ref ? item.$ref.slice(2).split('/').reduce((node, key) => node[key], api) : item);
const verbOf = (operation) => h('span', { class: `verb ${operation.verb}` }, operation.verb.toUpperCase());
const breakable = (path) => path.split(/(?=\/)/).flatMap((part) => [h('wbr'), part]);
const linkTo = (operation, text) => h('a', { href: `#${operation.id}` }, verbOf(operation), text);

// The document uses only paragraphs, lists, `code` and **strong** of Markdown.
function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*|\*[^*]+\*)/).map((part) => {
    if (part.startsWith('`')) return h('code', {}, part.slice(1, -1));
    if (part.startsWith('**')) return h('strong', {}, part.slice(2, -2));
    return /^\*[^*]+\*$/.test(part) ? h('em', {}, part.slice(1, -1)) : part;
  });
}

function markdown(text = '') {
  return text.trim().split(/\n{2,}/).filter(Boolean).map((block) => (block.startsWith('- ')
    ? h('ul', {}, block.split(/\n?- (?=\S)/).filter(Boolean).map((line) => h('li', {}, inline(line))))
    : h('p', {}, inline(block))));
}

// --- The list of operations ---

function readOperations() {
  const found = Object.entries(api.paths).flatMap(([path, verbs]) => Object.entries(verbs)
    .map(([verb, operation]) => ({ ...operation, id: operation.operationId, verb, path })));
  return new Map(found.map((operation) => [operation.id, operation]));
}

function showList() {
  const words = $('search').value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (one) => words.every((word) => `${one.verb} ${one.path} ${one.summary} ${one.tags}`.toLowerCase().includes(word));
  const groups = api.tags.map((tag) => {
    const items = [...operations.values()].filter((one) => one.tags.includes(tag.name) && fits(one));
    const links = items.map((one) => h('li', {}, linkTo(one, h('span', { title: one.summary }, breakable(one.path.replace(/^\/v3/, ''))))));
    return items.length ? h('details', { open: true }, h('summary', { title: tag.description }, tag.name), h('ul', {}, links)) : '';
  });
  $('operations').replaceChildren(...groups.filter(Boolean));
  if (!$('operations').firstChild) $('operations').append(h('p', { class: 'soft' }, 'No operation matches.'));
  markCurrent();
}

function markCurrent() {
  for (const link of $('operations').querySelectorAll('a')) {
    if (link.hash === location.hash) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  $('operations').querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest' });
}

function route() {
  const operation = operations.get(location.hash.slice(1));
  document.title = operation ? `${operation.summary} – Cardwright API` : 'Cardwright API';
  $('content').replaceChildren(...(operation ? operationPage(operation) : welcomePage()));
  $('content').scrollTop = 0;
  markCurrent();
}

// --- Pages ---

function welcomePage() {
  const steps = api['x-guide'].map(({ title, operations: ids }) => h('li', {}, title, ids.map((id) => {
    const operation = operations.get(id);
    return linkTo(operation, h('code', {}, operation.path));
  })));
  return [
    h('h1', {}, 'From nothing to a paid coffee, in six steps'),
    h('p', {}, 'Fill in the credentials above; the server printed them when it started, and they stay in this tab. Then open ',
      'each step and press ', h('strong', {}, 'Send'), ': the examples work unchanged.'),
    h('ol', { class: 'guide' }, steps),
    h('h2', {}, 'Conventions'),
    ...markdown(api.info.description),
    h('p', { class: 'soft' }, 'This page shows the OpenAPI document ', h('a', { href: '/openapi.json' }, '/openapi.json'), '.'),
  ];
}

function operationPage(operation) {
  const body = operation.requestBody?.content['application/json'];
  return [
    h('h1', {}, inline(operation.summary.replace(/\.$/, ''))),
    h('div', { class: 'place' }, verbOf(operation), h('code', {}, operation.path)),
    ...markdown(operation.description),
    h('div', { class: 'columns' },
      h('section', { 'aria-label': 'Try it' }, tryForm(operation, body)),
      h('section', { 'aria-label': 'Reference' },
        body ? [h('h2', {}, 'Body'), schemaView(body.schema, true)] : '',
        h('h2', {}, 'Answers'), h('div', { class: 'answers' }, Object.entries(operation.responses).map(answerView)))),
  ];
}

function answerView([status, response]) {
  const { description, content } = resolve(response);
  const json = content?.['application/json'];
  const codes = Object.values(json?.examples ?? {}).map(({ value }) => h('tr', {},
    h('td', {}, h('code', {}, value.error_code)), h('td', {}, value.error_message)));
  const title = [h('code', {}, status), ' ', h('span', { class: 'soft' }, inline(description))];
  if (!json?.schema) return h('div', {}, title);
  return h('details', { open: status < '300' }, h('summary', {}, title),
    codes.length ? h('table', {}, h('tbody', {}, codes)) : schemaView(json.schema, false));
}

// --- Schemas ---

// In a request null means absent, so it is not listed as a type.
function typeOf(schema, isRequest) {
  if (schema.$ref) return schema.$ref.split('/').pop();
  const shown = (kinds) => kinds.filter((kind) => kind !== 'null' || !isRequest).join(' or ');
  if (schema.anyOf) return shown(schema.anyOf.map((kind) => typeOf(kind)));
  if (schema.enum) return shown(schema.enum.map((value) => JSON.stringify(value)));
  return shown([schema.type ?? 'anything'].flat().map((kind) => (kind === 'array' ? `list of ${typeOf(schema.items ?? {})}` : kind)));
}

function limitsOf(schema) {
  const range = (least, most, unit) => {
    if (most === undefined && !(least > 1)) return '';
    const text = least === undefined ? `at most ${most}` : most === undefined ? `at least ${least}` : `${least} to ${most}`;
    return least === most ? `${least}${unit}` : text + unit;
  };
  return [
    range(schema.minLength, schema.maxLength, ' characters'), range(schema.minItems, schema.maxItems, ' items'),
    range(schema.minimum, schema.maximum, ''), schema.pattern ? `like ${schema.pattern}` : '',
    'default' in schema ? `default ${JSON.stringify(schema.default)}` : '',
  ].filter(Boolean);
}

// The inner schema: that of an object, or of the items of a list or an alternative.
function innerOf(schema) {
  const item = resolve(schema);
  if (item?.properties) return item;
  return [item?.items, ...(item?.anyOf ?? [])].filter(Boolean).map(innerOf).find(Boolean);
}

function schemaView(schema, isRequest) {
  const inner = innerOf(schema), text = markdown((inner ?? resolve(schema)).description);
  if (!inner) return h('div', {}, text, h('p', {}, h('code', {}, typeOf(schema))));
  return h('div', {}, text, h('ul', { class: 'fields' }, Object.entries(inner.properties)
    .map(([name, field]) => fieldView(name, field, inner.required?.includes(name), isRequest))));
}

function fieldView(name, field, isRequired, isRequest) {
  const about = [h('code', {}, name), isRequired ? h('span', { class: 'required', title: 'required' }, '*') : '', ' ',
    h('span', { class: 'soft' }, [typeOf(field, isRequest), ...limitsOf(field)].join(' · '),
      field.description ? [' · ', ...inline(field.description)] : '')];
  if (!innerOf(field)) return h('li', {}, about);
  const details = h('details', { ontoggle: () => details.children.length > 1 || details.append(schemaView(field, isRequest)) }, h('summary', {}, about));
  return h('li', {}, details);
}

function skeletonOf(schema) {
  const item = resolve(schema);
  if (item.properties) return Object.fromEntries((item.required ?? []).map((name) => [name, skeletonOf(item.properties[name])]));
  if (item.enum) return item.enum[0];
  return { array: [], object: {}, integer: 0, number: 0, boolean: false }[[item.type].flat()[0]] ?? '';
}

// --- Trying it ---

function tryForm(operation, body) {
  const draft = drafts.get(operation.id) ?? {};
  const parameters = (operation.parameters ?? []).map((one) => parameterView(operation, one, draft));
  const original = body && [PURCHASE, NUMBER].reduce((text, open) => text.replaceAll(open, remembered.get(open) ?? open),
    JSON.stringify(body.example ?? skeletonOf(body.schema), null, 2).replaceAll(HERE, location.origin));
  const text = body && h('textarea', { id: 'body', spellcheck: 'false', rows: Math.min(original.split('\n').length + 1, 28) });
  if (text) text.value = draft.body ?? original;
  const answer = h('div', {});
  const request = () => readForm(operation, form);
  const form = h('form', {
    onsubmit: (event) => { event.preventDefault(); send(operation, request(), answer); },
    // Store only the edited field. The others still get tokens of later answers.
    oninput: ({ target }) => drafts.set(operation.id, { ...drafts.get(operation.id), [target.id]: target.value }),
    onkeydown: (event) => {
      if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault(); // Enter in a field or on a button already submits the form.
      form.requestSubmit();
    },
  },
  parameters.length ? [h('h2', {}, 'Parameters'), parameters] : '',
  text ? [h('h2', {}, h('label', { for: 'body' }, 'Body')), text] : '',
  h('div', { class: 'actions' },
    h('button', { class: 'send', title: 'Ctrl+Enter does the same' }, 'Send'),
    h('button', { type: 'button', onclick: (event) => copy(curlOf(request()), event.target) }, 'Copy as curl'),
    text ? h('button', { type: 'button', onclick: () => { text.value = original; delete drafts.get(operation.id)?.body; } }, 'Reset the body') : ''));
  return [form, answer];
}

function parameterView(operation, parameter, draft) {
  const id = `${parameter.in}-${parameter.name}`;
  const { schema } = parameter;
  const values = schema.enum ?? (schema.type === 'boolean' ? [true, false] : null);
  const isPath = parameter.in === 'path';
  const attributes = { id, name: parameter.name, required: parameter.required, spellcheck: 'false', placeholder: schema.default ?? [schema.type].flat().join(' or ') };
  const input = values
    ? h('select', attributes, ['', ...values].map((value) => h('option', { value: String(value) }, String(value))))
    : h('input', attributes);
  const known = remembered.get(`${operation.id} ${parameter.name}`) ?? remembered.get(parameter.example) ?? parameter.example;
  input.value = draft[id] ?? (isPath ? known ?? '' : '');
  const about = [...limitsOf(schema), parameter.description].filter(Boolean).join(' · ');
  return h('div', { class: 'parameter' },
    h('label', { for: id }, parameter.name, parameter.required ? h('span', { class: 'required', title: 'required' }, '*') : ''), input,
    about ? h('span', { class: 'soft' }, inline(about)) : '');
}

function readForm(operation, form) {
  const values = (place) => operation.parameters?.filter((one) => one.in === place)
    .map((one) => [one.name, form.querySelector(`#${place}-${one.name}`).value]) ?? [];
  const path = values('path').reduce((text, [name, value]) => text.replace(`{${name}}`, () => encodeURIComponent(value)), operation.path);
  const query = new URLSearchParams(values('query').filter(([, value]) => value !== '')).toString();
  return { verb: operation.verb.toUpperCase(), url: location.origin + path + (query && `?${query}`), body: form.querySelector('#body')?.value };
}

function authorization() {
  const { application, access } = $('credentials').elements;
  const bytes = new TextEncoder().encode(`${application.value}:${access.value}`);
  return `Basic ${btoa(String.fromCharCode(...bytes))}`;
}

async function send(operation, { verb, url, body }, answer) {
  answer.replaceChildren(h('p', { class: 'soft' }, 'Sending …'));
  const headers = { Authorization: authorization(), ...(body === undefined ? {} : { 'Content-Type': 'application/json' }) };
  const start = performance.now();
  try {
    const response = await fetch(url, { method: verb, headers, body, credentials: 'omit', cache: 'no-store' });
    const text = await response.text();
    answer.replaceChildren(resultView(response, text, performance.now() - start));
    answer.scrollIntoView({ block: 'nearest' });
    $('said').textContent = `The answer is ${response.status} ${response.statusText}.`; // For screen readers.
    remember(operation, response.status, text);
  } catch (error) {
    answer.replaceChildren(h('div', { class: 'answer' }, h('p', { class: 'bad' }, `The server does not answer: ${error.message}`)));
  }
}

function resultView(response, text, time) {
  const headers = [...response.headers].map(([name, value]) => `${name}: ${value}`).join('\n');
  const isMissing = response.status === 401 && !$('credentials').elements.access.value;
  return h('div', { class: 'answer' },
    h('p', {}, h('span', { class: `status ${response.ok ? 'good' : 'bad'}` }, `${response.status} ${response.statusText}`),
      h('span', { class: 'soft' }, `${time.toFixed(0)} ms · ${new TextEncoder().encode(text).length} bytes`),
      text ? h('button', { type: 'button', onclick: (event) => copy(text, event.target) }, 'Copy') : ''),
    isMissing ? h('p', { class: 'bad' }, 'Fill in the credentials at the top of the page first.') : '',
    h('details', {}, h('summary', { class: 'soft' }, 'Headers'), h('pre', {}, headers)),
    text ? pretty(text) : '');
}

// Formats the text of the JSON. A parsed number would show 10.00 as 10.
function pretty(text) {
  try { JSON.parse(text); } catch { return h('pre', { tabindex: 0 }, text); }
  const tokens = text.match(TOKEN), out = [];
  let depth = 0;
  const line = () => out.push(`\n${'  '.repeat(depth)}`);
  tokens.forEach((token, index) => {
    const isEmpty = '{['.includes(tokens[index - 1]), opens = '{['.includes(token), closes = '}]'.includes(token);
    if (closes) { depth -= 1; if (!isEmpty) line(); }
    const kind = token[0] === '"' ? (tokens[index + 1] === ':' ? 'name' : 'text') : /^[-\d]/.test(token) ? 'number' : /^[a-z]/.test(token) ? 'word' : null;
    out.push(kind ? h('span', { class: `json-${kind}` }, token) : token === ':' ? ': ' : token);
    if (opens) depth += 1;
    if ((opens && !'}]'.includes(tokens[index + 1])) || token === ',') line();
  });
  return h('pre', { tabindex: 0 }, out);
}

// The links of a response list the operations and parameters that accept its tokens.
function remember(operation, status, text) {
  if (operation.id === 'simulate_authorization' && status === 201) remembered.set(PURCHASE, JSON.parse(text).transaction.token);
  if (operation.id === 'create_account' && status === 201) remembered.set(NUMBER, JSON.parse(text).account_number);
  for (const link of Object.values(operation.responses[status]?.links ?? {})) {
    for (const [name, pointer] of Object.entries(link.parameters)) {
      const value = pointer.split('#/')[1].split('/').reduce((node, key) => node?.[key], JSON.parse(text));
      if (typeof value === 'string') remembered.set(`${link.operationId} ${name}`, value);
    }
  }
}

// --- Copying ---

function curlOf({ verb, url, body }) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const lines = [`curl -X ${verb} ${quoted(url)}`, '-u "$CARDWRIGHT_APPLICATION_TOKEN:$CARDWRIGHT_ACCESS_TOKEN"'];
  if (body !== undefined) lines.push("-H 'Content-Type: application/json'", `-d ${quoted(body)}`);
  return lines.join(' \\\n  ');
}

async function copy(text, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // Without TLS, browsers offer the clipboard only to pages of the same machine.
    const area = h('textarea', {});
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
  button.textContent = 'Copied';
  setTimeout(() => { button.textContent = label; }, 1200);
}

// --- The frame ---

function keepCredentials() {
  for (const input of $('credentials').elements) {
    input.value = sessionStorage.getItem(input.name) ?? '';
    input.addEventListener('input', () => sessionStorage.setItem(input.name, input.value));
  }
  $('credentials').addEventListener('submit', (event) => event.preventDefault());
}

function keepTheme() {
  const root = document.documentElement;
  if (localStorage.getItem('theme')) root.dataset.theme = localStorage.getItem('theme');
  $('theme').addEventListener('click', () => {
    const isDark = (root.dataset.theme ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
    root.dataset.theme = isDark ? 'light' : 'dark';
    localStorage.setItem('theme', root.dataset.theme);
  });
}

keepTheme();
keepCredentials();
api = await (await fetch('/openapi.json')).json();
operations = readOperations();
$('version').textContent = api.info.version;
$('search').addEventListener('input', showList);
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault(); // Keep the operation in the address.
  $('content').focus();
});
document.addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.target.matches('input, textarea, select')) return;
  event.preventDefault();
  $('search').focus();
});
window.addEventListener('hashchange', route);
showList();
route();
