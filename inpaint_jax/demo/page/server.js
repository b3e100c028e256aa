// Calls to the server.

// The answer, or an Error whose message is one sentence; an AbortError if `options.signal` says so.
export async function call(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached; is it still running?");
  }
  if (!answer.ok) {
    const body = await answer.json().catch(() => ({}));
    throw new Error(body.error ?? `The server answered with ${answer.status}.`);
  }
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server's answer broke off; try again.");
  }
}

// What is null is left out; files are {file, name}.
export function form(fields) {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value === null) continue;
    if (value instanceof Blob) data.append(name, value, `${name}.png`);
    else if (value.file) data.append(name, value.file, value.name);
    else data.append(name, value);
  }
  return data;
}

export function decoded(base64, type = "image/png") {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new Blob([bytes], { type });
}
